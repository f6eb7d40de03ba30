import { square } from "./square.ts";

export default square;
