/**
 * How far a client is: all that it is made of looks at the same place.
 *
 * @module
 */

/**
 * How far a client is.
 *
 * ```text
 *   handshake ──► open ──► goodbye ──► closed
 *       └───────────┴─────────┴──────► lost
 * ```
 */
export type ClientPhase = "handshake" | "open" | "goodbye" | "closed" | "lost";

/** The life of one client. */
export class ClientLife {
  /** How far it is. */
  phase: ClientPhase = "handshake";
  /** Why it is lost; null: it isn't. */
  error: Error | null = null;

  /** Whether items are taken, and answers and values sent. */
  get isOpen(): boolean {
    return this.phase === "open";
  }
}
