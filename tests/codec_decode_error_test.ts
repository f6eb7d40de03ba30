import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { cbor, CborTag, DecodeError } from "../codec.ts";

const codec = cbor();
const bytes = (hex: string) => Uint8Array.fromHex(hex.replaceAll(" ", ""));

/** What is malformed, the bytes, and the offset and reason of the error. */
const malformed: [what: string, hex: string, offset: number, reason: string][] =
  [
    ["nothing", "", 0, "ends too early"],
    ["an integer without its byte", "18", 1, "ends too early"],
    ["an integer without a byte of eight", "1b00000000000000", 8, "too early"],
    ["a half-precision float without its end", "f97c", 2, "ends too early"],
    ["a double without its end", "fb7ff00000000000", 8, "ends too early"],
    ["a simple value without its byte", "f8", 1, "ends too early"],
    ["a byte string without its end", "430102", 3, "ends too early"],
    ["a text without its end", "636162", 3, "ends too early"],
    ["a text whose length has no end", "7a000000", 4, "ends too early"],
    ["an array without its end", "8301", 0, "more than the bytes that are"],
    ["an array without its last item", "821901", 3, "ends too early"],
    ["an array whose last item lacks its byte", "8118", 2, "ends too early"],
    ["an array whose last item lacks one of two", "811901", 3, "too early"],
    [
      "an array whose last item lacks one of four",
      "811a010203",
      5,
      "too early",
    ],
    ["a map without its end", "a26161", 0, "more than the bytes that are left"],
    ["a map without a value", "bf6161", 3, "ends too early"],
    ["a tag without content", "c1", 1, "ends too early"],
    ["an unknown tag without content", "d903e8", 3, "ends too early"],
    ["an endless array", "9f01", 2, "ends too early"],
    ["an endless map", "bf616101", 4, "ends too early"],
    ["an endless text", "7f6161", 3, "ends too early"],
    ["an endless byte string", "5f4101", 3, "ends too early"],

    ["a byte after the value", "0000", 1, "1 bytes follow the value"],
    ["a break after the value", "80ff", 1, "1 bytes follow the value"],
    ["a value after the value", "a06161", 1, "2 bytes follow the value"],

    ["reserved info 28 of an integer", "1c", 0, "information 28 is reserved"],
    ["reserved info 29 of a negative", "3d", 0, "information 29 is reserved"],
    ["reserved info 30 of bytes", "5e", 0, "information 30 is reserved"],
    ["reserved info 28 of a text", "7c", 0, "information 28 is reserved"],
    ["reserved info 29 of an array", "9d", 0, "information 29 is reserved"],
    ["reserved info 30 of a map", "be", 0, "information 30 is reserved"],
    ["reserved info 28 of a tag", "dc00", 0, "information 28 is reserved"],
    ["reserved info 28 of a simple value", "fc", 0, "28 is reserved"],
    ["reserved info 29 of a simple value", "fd", 0, "29 is reserved"],
    ["reserved info 30 of a simple value", "fe", 0, "30 is reserved"],
    ["an indefinite integer", "1f", 0, "indefinite where it can't be"],
    ["an indefinite negative", "3f", 0, "indefinite where it can't be"],
    ["an indefinite tag", "df00", 0, "indefinite where it can't be"],

    ["a break alone", "ff", 0, "a break is outside of any item"],
    ["a break in an array", "81ff", 1, "a break is outside of any item"],
    ["a break for a value", "bf6161ff", 3, "a break is outside of any item"],
    ["a break in a map", "a1ff01", 1, "a break is outside of any item"],
    ["a break in a tag", "c6ff", 1, "a break is outside of any item"],

    ["simple value false in two bytes", "f814", 0, "simple value 20 in two"],
    ["simple value 0 in two bytes", "f800", 0, "simple value 0 in two bytes"],
    ["simple value 25 in two bytes", "f819", 0, "simple value 25 in two bytes"],
    ["simple value 31 in two bytes", "f81f", 0, "simple value 31 in two bytes"],

    ["text that is a lone byte", "61ff", 0, "not valid UTF-8"],
    ["text that ends in a sequence", "61c3", 0, "not valid UTF-8"],
    ["text that is overlong", "62c080", 0, "not valid UTF-8"],
    ["text with a surrogate", "63eda080", 0, "not valid UTF-8"],
    ["text past U+10FFFF", "64f4908080", 0, "not valid UTF-8"],
    ["text that isn't UTF-8, inside", "8201 6180", 2, "not valid UTF-8"],
    [
      "a long text that isn't",
      `7864${"61".repeat(99)}80`,
      0,
      "not valid UTF-8",
    ],
    ["text with U+FFFD that isn't", "64efbfbd80", 0, "not valid UTF-8"],
    ["a key that isn't UTF-8", "a161ff00", 1, "not valid UTF-8"],
    ["a sequence over two chunks", "7f61c3 61bc ff", 1, "not valid UTF-8"],

    ["a byte chunk in a text", "7f4161ff", 1, "expected a text string, got"],
    ["a text chunk in bytes", "5f6161ff", 1, "expected a byte string, got a"],
    ["an indefinite chunk in a text", "7f7f6161ffff", 1, "indefinite"],
    ["an indefinite chunk in bytes", "5f5f4161ffff", 1, "indefinite"],
    ["an integer in a text", "7f00ff", 1, "expected a text string, got an"],

    ["a key twice", "a2616101616102", 4, 'key "a" is there twice'],
    ["a key twice, indefinite", "bf616101616102ff", 4, 'key "a" is there'],
    [
      "a key twice, once in chunks",
      "a2 6161 01 7f6161ff 02",
      4,
      '"a" is there',
    ],
    ["a key twice, deep inside", "81a1616ba2616101616102", 8, '"a" is there'],
    [
      "the key __proto__ twice",
      "a2 695f5f70726f746f5f5f 01 695f5f70726f746f5f5f 02",
      12,
      'key "__proto__" is there twice',
    ],
    ["an integer key twice", "a201010102", 3, "a key is there twice"],
    ["a key 1 and a key 1.0", "a20101f93c0002", 3, "a key is there twice"],
    ["an array key twice", "a2810101810102", 4, "a key is there twice"],
    ["a byte string key twice", "a2410101410102", 4, "a key is there twice"],
    ["a text key twice, mixed", "a36161010101616102", 6, "key is there twice"],
    ["a Map's key twice", "d90103a201010102", 6, "a key is there twice"],
    ["a Map's NaN twice", "d90103a2f97e0001f97e0002", 8, "key is there twice"],
    ["a Map's 0 and -0", "d90103a20001f9800002", 6, "a key is there twice"],
    ["a Set's value twice", "d90102820101", 5, "value of a set is there twice"],
    ["a dictionary's key twice", "d90113a2616101616102", 7, '"a" is there'],

    ["a date of text", "c16161", 0, "not a number of seconds"],
    ["a date of an array", "c18101", 0, "not a number of seconds"],
    ["a date of a tag", "c1c100", 0, "not a number of seconds"],
    ["a date of null", "c1f6", 0, "not a number of seconds"],
    ["a date of NaN", "c1f97e00", 0, "date is out of range"],
    ["a date of Infinity", "c1f97c00", 0, "date is out of range"],
    ["a date out of range", "c11b000007dba8218001", 0, "date is out of range"],
    ["a date past 2^53", "c11b0020000000000001", 0, "not a number of seconds"],
    ["a text date of an integer", "c000", 1, "expected a text string"],
    ["a bignum of an integer", "c201", 1, "expected a byte string"],
    ["a bignum of text", "c36161", 1, "expected a byte string"],
    ["a URL that isn't", "d8206161", 0, "URL is not valid"],
    ["a URL of bytes", "d8204161", 2, "expected a text string"],
    [
      "a RegExp that doesn't parse",
      "d9524a816128",
      0,
      "expression is not valid",
    ],
    ["a RegExp with wrong flags", "d9524a8261616178", 0, "is not valid"],
    ["a RegExp with a flag twice", "d9524a826161626767", 0, "is not valid"],
    ["a RegExp of nothing", "d9524a80", 0, "has no source"],
    ["a RegExp of three", "d9524a83616160f6", 0, "more than flags"],
    ["a RegExp of text", "d9524a6161", 3, "expected an array, got a text"],
    ["a text RegExp that doesn't parse", "d8236128", 0, "is not valid"],
    ["a Map of an array", "d9010380", 3, "expected a map, got an array"],
    ["a Map of a Map", "d90103d90103a0", 3, "expected a map, got a tag"],
    ["a Set of a map", "d90102a0", 3, "expected an array, got a map"],
    ["a dictionary with key 1", "d90113a10101", 4, "expected a text string"],
    ["a typed array of text", "d8486161", 2, "expected a byte string"],
    ["a Uint16Array of 3 bytes", "d84543010203", 0, "a multiple of 2"],
    [
      "a Float64Array of 7 bytes",
      `d85647${"00".repeat(7)}`,
      0,
      "multiple of 8",
    ],
    ["an object that is no array", "d81ba0", 2, "expected an array, got a map"],
    [
      "an ArrayBuffer of text",
      "d81b826b41727261794275666665726161",
      0,
      "ArrayBuffer is not made of one byte string",
    ],
    [
      "an ArrayBuffer of two byte strings",
      "d81b836b417272617942756666657241004100",
      0,
      "ArrayBuffer is not made of one byte string",
    ],
    [
      "an error without a message",
      "d81b81654572726f72",
      0,
      "error is not made",
    ],
    ["an error of an integer", "d81b82654572726f7201", 0, "error is not made"],
    [
      "an error with wrong details",
      "d81b83654572726f72616d01",
      0,
      "error is not made of a message and details",
    ],
    [
      "an error whose name is 1",
      "d81b83654572726f72616da1646e616d6501",
      0,
      "name is not text",
    ],
    [
      "an error whose name is undefined",
      "d81b83654572726f72616da1646e616d65f7",
      0,
      "name is not text",
    ],
    [
      "an AggregateError without errors",
      "d81b826e4167677265676174654572726f72616d",
      0,
      "AggregateError has no errors",
    ],
    [
      "an error with other details",
      "d81b83654572726f72616da163666f6f01",
      0,
      'details have "foo", expected name, cause',
    ],
    [
      "errors in an Error",
      "d81b83654572726f72616da1666572726f72738101",
      0,
      'details have "errors", expected name, cause',
    ],
  ];

for (const [what, hex, offset, reason] of malformed) {
  Deno.test(`cbor() refuses ${what}`, () => {
    const error = assertThrows(
      () => codec.decode(bytes(hex)),
      DecodeError,
      reason,
    );
    assertEquals(error.offset, offset);
    assertEquals(error.message.endsWith(`(offset ${offset})`), true);
  });
}

Deno.test("cbor() refuses text dates that aren't RFC 3339", () => {
  const texts = [
    "",
    "2013",
    "2013-03-21",
    "2013-03-21T20:04Z",
    "2013-03-21T20:04:00",
    "2013-03-21 20:04:00Z",
    "2013-13-21T20:04:00Z",
    "2013-03-32T20:04:00Z",
    "2013-02-29T20:04:00Z",
    "1900-02-29T20:04:00Z",
    "2013-04-31T20:04:00Z",
    "2013-03-21T24:04:00Z",
    "2013-03-21T20:60:00Z",
    "2013-03-21T20:04:60Z",
    "March 21, 2013",
  ];
  for (const text of texts) {
    const payload = codec.encode(new CborTag(0, text));
    assertThrows(() => codec.decode(payload), DecodeError, "not valid", text);
  }
});

Deno.test("cbor() refuses every prefix of a payload", () => {
  const payload = codec.encode({
    id: "0123456789".repeat(30),
    list: [1, -500, 70000, 2 ** 40, 1.1, new Date(0), 5n ** 50n],
    map: new Map<unknown, unknown>([[1, new Set([/a/g, new URL("a:b")])]]),
    bytes: new Uint8Array(300),
    error: new Error("a", { cause: [new Float64Array(3), "ключ"] }),
  });
  for (let length = 0; length < payload.length; length++) {
    assertThrows(() => codec.decode(payload.subarray(0, length)), DecodeError);
  }
  assertEquals(typeof codec.decode(payload), "object");
});

Deno.test("DecodeError's offset counts from the start of the payload", () => {
  const outer = bytes("ffff 8201 61ff ffff");
  const error = assertThrows(
    () => codec.decode(outer.subarray(2, 6)),
    DecodeError,
  );
  assertEquals(error.offset, 2);
  assertEquals(
    error.message,
    "Cannot decode value: text is not valid UTF-8 (offset 2)",
  );
});

Deno.test("DecodeError quotes a part of a long key", () => {
  const key = `78c8${"61".repeat(200)}`;
  const details = `d81b83 65${"4572726f72"} 6161 a1${key}01`;
  for (const hex of [`a2${key}01${key}02`, details]) {
    const { message } = assertThrows(
      () => codec.decode(bytes(hex)),
      DecodeError,
    );
    assertStringIncludes(message, `"${"a".repeat(100)}"…`);
  }
});

Deno.test("DecodeError carries the error behind it", () => {
  const error = assertThrows(
    () => codec.decode(codec.encode(new CborTag(32, "no URL"))),
    DecodeError,
  );
  assertEquals(error.cause instanceof TypeError, true);
});

Deno.test("cbor() refuses to decode what is no Uint8Array", () => {
  for (const payload of ["00", new ArrayBuffer(1), [0], undefined, null]) {
    assertThrows(
      () => codec.decode(payload as unknown as Uint8Array),
      TypeError,
    );
  }
});
