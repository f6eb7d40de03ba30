/** What the server sends: one row of the picture. */
export interface Row {
  /** Which row, from the top. */
  y: number;
  /** The picture's size in pixels. */
  width: number;
  /** The picture's size in pixels. */
  height: number;
}

/** What a worker sends back: the row's pixels, three bytes each: RGB. */
export type Pixels = Uint8Array;
