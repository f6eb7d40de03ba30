/** A block of bytes in PROTOCOL.md. */
export interface Golden {
  /** What the block is called. */
  name: string;
  /** Its bytes. */
  bytes: Uint8Array<ArrayBuffer>;
}

/** The `hex` blocks of PROTOCOL.md, in their order. */
export function goldenBlocks(): Golden[] {
  const text = Deno.readTextFileSync(
    new URL("../../PROTOCOL.md", import.meta.url),
  );
  const blocks: Golden[] = [];
  for (const [, name, body] of text.matchAll(/^```hex (.+)\n([^]*?)^```$/gm)) {
    const hex = body!.replaceAll(/#.*$/gm, "").replaceAll(/\s/g, "");
    blocks.push({ name: name!, bytes: Uint8Array.fromHex(hex) });
  }
  return blocks;
}

/** One block, by its name. */
export function golden(name: string): Uint8Array<ArrayBuffer> {
  const block = goldenBlocks().find((b) => b.name === name);
  if (block === undefined) {
    throw new Error(`PROTOCOL.md has no block "${name}"`);
  }
  return block.bytes;
}
