Deno.exit(9);
export default (): void => {};
