/** What the server sends: a reference to a file, not its bytes. */
export interface FileRef {
  /** Which file this is: the first one found is 0. */
  id: number;
  /** Its path below the folder that server and workers share. */
  path: string;
}

/** What a worker sends back. */
export interface Checksum extends FileRef {
  /** SHA-256 in hexadecimal. */
  sha256: string;
  /** The name of the worker. */
  worker: string;
}
