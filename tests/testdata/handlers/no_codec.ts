export const codec = "json";
export default (): void => {};
