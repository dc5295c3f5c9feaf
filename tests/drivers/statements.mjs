// What the driver's own documentation shows for HTTP, statement by statement.
// POOLKEEPER_SQL=ENDPOINT DATABASE_URL=CONNECTION_STRING node statements.mjs

import assert from "node:assert/strict";
import { neon, NeonDbError, neonConfig, Pool, types } from "@neondatabase/serverless";

const url = process.env.DATABASE_URL;
neonConfig.fetchEndpoint = process.env.POOLKEEPER_SQL;
const sql = neon(url);

async function refused(promise) {
  const error = await promise.then(() => assert.fail("It was not refused."), (error) => error);
  assert.ok(error instanceof NeonDbError, String(error));
  return error;
}

// --- queries -------------------------------------------------------------------------------

await sql`create table posts (id int primary key, title text unique, tags text[], at timestamptz)`;
const at = new Date("2026-11-20T09:00:00.123Z");
const rows = await sql`
  insert into posts values (${1}, ${"My 'post'"}, ${["a", 'b"\\', null, "NULL"]}, ${at}) returning *`;
assert.deepEqual(rows, [
  { id: 1, title: "My 'post'", tags: ["a", 'b"\\', null, "NULL"], at },
]);
const postId = 1;
const [post] = await sql`SELECT * FROM posts WHERE id = ${postId}`;
assert.equal(post.title, "My 'post'");
const where = sql`WHERE id = ${postId}`;
assert.deepEqual(await sql`SELECT title FROM posts ${where}`, [{ title: "My 'post'" }]);
assert.deepEqual(await sql`SELECT id FROM ${sql.unsafe("posts")} WHERE id = ${postId}`, [{ id: 1 }]);
assert.deepEqual(await sql.query("SELECT id FROM posts WHERE id = $1", [postId]), [{ id: 1 }]);
assert.deepEqual(await sql`SELECT * FROM posts WHERE id = ${2}`, []);

const arrays = neon(url, { arrayMode: true });
assert.deepEqual(await arrays`SELECT id, title AS id FROM posts`, [[1, "My 'post'"]]);
assert.deepEqual(await sql.query("SELECT 1 AS a", [], { arrayMode: true }), [[1]]);

const full = await neon(url, { fullResults: true })`SELECT id, title FROM posts`;
assert.deepEqual(full.rows, [{ id: 1, title: "My 'post'" }]);
assert.deepEqual([full.command, full.rowCount, full.rowAsArray], ["SELECT", 1, false]);
const { tableID, ...id } = full.fields[0];
assert.ok(tableID > 0);
assert.deepEqual(id, {
  name: "id",
  dataTypeID: 23,
  columnID: 1,
  dataTypeSize: 4,
  dataTypeModifier: -1,
  format: "text",
});
for (const [text, command, rowCount] of [
  ["update posts set title = 'x'", "UPDATE", 1],
  ["delete from posts where id = 7", "DELETE", 0],
  ["insert into posts select g from generate_series(2, 30) g", "INSERT", 29],
  ["insert into posts values (31), (32) returning id", "INSERT", 2],
  ["select generate_series(1, 1234)", "SELECT", 1234],
  ["create table other (id int)", "CREATE", null],
  ["show server_version", "SHOW", null],
  ["", "", null],
]) {
  const done = await sql.query(text, [], { fullResults: true });
  assert.deepEqual([done.command, done.rowCount], [command, rowCount], text);
  if (rowCount > 1000) assert.equal(done.rows.at(-1).generate_series, 1234);
}

const aborted = new AbortController();
setTimeout(() => aborted.abort("timed out"), 50);
const late = sql.query("select pg_sleep(600)", [], { fetchOptions: { signal: aborted.signal } });
assert.match((await refused(late)).message, /Error connecting to database: timed out/);

const getTypeParser = (oid, format) =>
  oid === types.builtins.NUMERIC ? parseFloat : types.getTypeParser(oid, format);
const [typed] = await sql.query("select 1.5::numeric n", [], { types: { getTypeParser } });
assert.deepEqual(typed, { n: 1.5 });

const { username, password, hostname, pathname } = new URL(url);
const user = decodeURIComponent(username);
const parts = neon({ user, password: async () => password, host: hostname, database: pathname });
assert.deepEqual(await parts`select 1 as one`, [{ one: 1 }]);

neonConfig.fetchEndpoint = (host) => {
  assert.equal(host, hostname);
  return process.env.POOLKEEPER_SQL;
};
let fetched = 0;
neonConfig.fetchFunction = (...request) => {
  fetched += 1;
  return fetch(...request);
};
assert.deepEqual(await sql`select 1 as one`, [{ one: 1 }]);
assert.equal(fetched, 1);
neonConfig.fetchFunction = undefined;

neonConfig.poolQueryViaFetch = true;
const pool = new Pool({ connectionString: url });
assert.deepEqual((await pool.query("select $1::int as n", [7])).rows, [{ n: 7 }]);
await pool.end();

// --- types ---------------------------------------------------------------------------------

for (const [expression, value] of [
  ["7", 7],
  ["9007199254740993::int8", "9007199254740993"],
  ["12345678901234567890.10::numeric", "12345678901234567890.10"],
  ["0.1::float8", 0.1],
  ["'NaN'::float8", NaN],
  ["true", true],
  ["null::int", null],
  ["'caf\u00e9 \u{1F418}'", "caf\u00e9 \u{1F418}"],
  ["E'tab\\t\"quote\"\\n'", 'tab\t"quote"\n'],
  ["'\\xdeadbeef00'::bytea", Buffer.from("deadbeef00", "hex")],
  ["'2026-11-20T10:00:00+01'::timestamptz", new Date("2026-11-20T09:00:00Z")],
  ["'2026-11-20'::date", new Date(2026, 10, 20)],
  ["'2026-11-20 09:00'::timestamp", new Date(2026, 10, 20, 9)],
  [`'{"a": [1, null]}'::jsonb`, { a: [1, null] }],
  [`'[1, {"b": 2}]'::json`, [1, { b: 2 }]],
  ["'{1,2,null}'::int[]", [1, 2, null]],
  ["'{{a,b},{c,\"d e\"}}'::text[]", [["a", "b"], ["c", "d e"]]],
  ["array['2026-11-20T09:00:00Z'::timestamptz]", [new Date("2026-11-20T09:00:00Z")]],
  ["array['{\"a\": 1}'::jsonb]", [{ a: 1 }]],
  ["'6f2a1f0e-8c1b-4a5e-9f43-0c8f3b1d2e4f'::uuid", "6f2a1f0e-8c1b-4a5e-9f43-0c8f3b1d2e4f"],
  ["'(1.5,2)'::point", { x: 1.5, y: 2 }],
  ["row(1, 'x')", "(1,x)"],
  ["int4range(1, 5)", "[1,5)"],
]) {
  const [row] = await sql.query(`select ${expression} as value`);
  assert.deepEqual(row.value, value, expression);
}
const [{ interval }] = await sql`select '1 year 2 mons 3 days 04:05:06.5'::interval as interval`;
assert.deepEqual({ ...interval }, {
  years: 1, months: 2, days: 3, hours: 4, minutes: 5, seconds: 6, milliseconds: 500,
});
for (const [type, value] of [
  ["int", 7],
  ["int8", "9007199254740993"],
  ["numeric", "1.10"],
  ["float8", 0.1],
  ["bool", false],
  ["text", "it's"],
  ["text", ""],
  ["text", null],
  ["bytea", Buffer.from([0, 1, 255])],
  ["timestamptz", at],
  ["jsonb", { a: [1, "x"], b: null }],
  ["int[]", [1, 2, 3]],
  ["text[]", ["a,b", '"', "\\", "", null]],
  ["int[]", [[1, 2], [3, 4]]],
]) {
  const [row] = await sql.query(`select $1::${type} as value`, [value]);
  assert.deepEqual(row.value, value, type);
}

// --- transactions ----------------------------------------------------------------------------

const [posts, tags] = await sql.transaction([
  sql`SELECT id FROM posts ORDER BY id LIMIT ${1}`,
  sql`SELECT ${"x"}::text AS tag`,
]);
assert.deepEqual([posts, tags], [[{ id: 1 }], [{ tag: "x" }]]);
for (const [isolationLevel, shown] of [
  ["ReadUncommitted", "read uncommitted"],
  ["ReadCommitted", "read committed"],
  ["RepeatableRead", "repeatable read"],
  ["Serializable", "serializable"],
]) {
  const [[level], [read], [same]] = await sql.transaction(
    (txn) => [
      txn`show transaction_isolation`,
      txn`show transaction_read_only`,
      txn`select pg_backend_pid() as pid, txid_current_if_assigned() is null as untouched`,
    ],
    { isolationLevel, readOnly: true, deferrable: true },
  );
  assert.deepEqual(
    [level.transaction_isolation, read.transaction_read_only, same.untouched],
    [shown, "on", true],
  );
}
const both = await sql.transaction([sql`select 1 as a`], { arrayMode: true, fullResults: true });
assert.deepEqual(both[0].rows, [[1]]);
const [asArrays, asObjects] = await sql.transaction([
  sql.query("select 1 as a", [], { arrayMode: true }),
  sql`select 1 as a`,
]);
assert.deepEqual([asArrays, asObjects], [[[1]], [{ a: 1 }]]);
const reading = neon(url, { isolationLevel: "RepeatableRead", readOnly: true });
const [[defaults]] = await reading.transaction([sql`show transaction_isolation`]);
assert.equal(defaults.transaction_isolation, "repeatable read");
const half = await refused(
  sql.transaction([sql`insert into other values (1)`, sql`select 1 / ${0}::int`]),
);
assert.equal(half.code, "22012");
assert.deepEqual(await sql`select * from other`, []);
const written = await refused(
  sql.transaction([sql`insert into other values (1)`], { readOnly: true }),
);
assert.equal(written.code, "25006");

// --- errors ----------------------------------------------------------------------------------

const nowhere = await refused(sql`SELECT * FROM nowhere`);
assert.equal(nowhere.message, 'relation "nowhere" does not exist');
assert.deepEqual(
  [nowhere.code, nowhere.severity, nowhere.position, nowhere.hint],
  ["42P01", "ERROR", "15", undefined],
);
assert.ok(nowhere.file && nowhere.line && nowhere.routine);
const twice = await refused(sql`insert into posts values (1)`);
assert.deepEqual(
  [twice.code, twice.schema, twice.table, twice.constraint, twice.detail],
  ["23505", "tenant_acme", "posts", "posts_pkey", "Key (id)=(1) already exists."],
);
const called = await refused(sql`select no_such_function(1)`);
assert.match(called.hint, /argument types|explicit type casts/);
const raised = await refused(
  sql`do $$ begin raise exception 'mine' using errcode = 'AB123', detail = 'why'; end $$`,
);
assert.deepEqual([raised.code, raised.message, raised.detail], ["AB123", "mine", "why"]);
assert.match(raised.where, /PL\/pgSQL function/);
const wrong = new URL(url);
wrong.password = "wrong";
assert.equal((await refused(neon(wrong.href)`select 1`)).code, "28P01");
const elsewhere = new URL(url);
elsewhere.pathname = "/globex";
assert.equal((await refused(neon(elsewhere.href)`select 1`)).code, "28000");

console.log("done");
