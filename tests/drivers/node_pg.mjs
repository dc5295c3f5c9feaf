// Through a node with node-postgres.
// DATABASE_URL=CONNECTION_STRING node node_pg.mjs

import assert from "node:assert/strict";
import pg from "pg";

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 2 });

await pool.query("create table fruits (id int primary key, name text)");
const client = await pool.connect();
await client.query("begin");
await client.query("insert into fruits values ($1, $2)", [1, "apple"]);
await client.query("commit");
await client.query("begin");
await client.query("insert into fruits values ($1, $2)", [2, "plum"]);
await client.query("rollback");
client.release();
await assert.rejects(pool.query("insert into fruits values (1, 'pear')"), { code: "23505" });
const { rows } = await pool.query("select current_user, * from fruits where id = $1", [1]);
assert.deepEqual(rows, [{ current_user: "tenant_acme", id: 1, name: "apple" }]);
await pool.end();
console.log("done");
