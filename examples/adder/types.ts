/** What the server sends: a question. */
export interface Question {
  /** Which question this is: answers come in any order. */
  id: number;
  /** One number. */
  a: number;
  /** The number to add to it. */
  b: number;
}

/** What a worker sends back. */
export interface Answer {
  /** The question's id. */
  id: number;
  /** Its sum. */
  answer: number;
}
