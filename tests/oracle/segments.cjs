// Reads texts, one JSON string a line; writes what sms-segments-calculator makes of each: the encoding, the code units in
// each segment (GSM-7: septets), and the lengths of what it takes for graphemes (UTF-16 units).
"use strict";
const readline = require("node:readline");
const { SegmentedMessage } = require("sms-segments-calculator");

const bits = { "GSM-7": 7, "UCS-2": 16 };

readline.createInterface({ input: process.stdin, crlfDelay: Infinity }).on("line", (line) => {
  const message = new SegmentedMessage(JSON.parse(line));
  const encoding = message.encodingName;
  const segments = message.segments.map((segment) => segment.messageSizeInBits() / bits[encoding]);
  const graphemes = message.graphemes.map((grapheme) => grapheme.length);
  process.stdout.write(JSON.stringify({ encoding, segments, graphemes }) + "\n");
});
