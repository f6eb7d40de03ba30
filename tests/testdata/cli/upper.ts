export default (item: unknown): unknown =>
  typeof item === "string" ? item.toUpperCase() : item;
