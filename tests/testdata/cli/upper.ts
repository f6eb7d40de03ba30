export default (item: unknown) => typeof item === "string" ? item.toUpperCase() : item;
