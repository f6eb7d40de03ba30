throw new RangeError("thrown at import");
export default (): void => {};
