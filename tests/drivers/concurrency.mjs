// A thousand statements at once, of which each must get its own result.
// POOLKEEPER_SQL=ENDPOINT DATABASE_URL=CONNECTION_STRING node concurrency.mjs

import assert from "node:assert/strict";
import { neon, neonConfig } from "@neondatabase/serverless";

const url = process.env.DATABASE_URL;
neonConfig.fetchEndpoint = process.env.POOLKEEPER_SQL;
const sql = neon(url);
const numbers = Array.from({ length: 1000 }, (_, number) => number);
const found = await Promise.all(
  numbers.map((number) => sql`select ${number}::int as n, array[${number}]::text[] as t`),
);
assert.deepEqual(found, numbers.map((number) => [{ n: number, t: [String(number)] }]));
console.log("done");
