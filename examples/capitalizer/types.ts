/** What the server sends: one line of text. */
export type Line = string;

/** What a worker sends back: the same line, capitalized. */
export type Capitalized = string;
