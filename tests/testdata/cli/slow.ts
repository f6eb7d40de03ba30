// Takes a while: 10 ms an item.
export default async (item: string): Promise<string> => {
  await new Promise((resolve) => setTimeout(resolve, 10));
  return item;
};
