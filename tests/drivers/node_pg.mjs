// Through a node with node-postgres.
// DATABASE_URL=CONNECTION_STRING [STATEMENT=NAME] node node_pg.mjs
// With a name the driver prepares a statement.

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
const statement = { text: "select current_user, * from fruits where id = $1", name: process.env.STATEMENT };
for (let time = 0; time < 10; time++) {
  const { rows } = await pool.query({ ...statement, values: [1] });
  assert.deepEqual(rows, [{ current_user: "tenant_acme", id: 1, name: "apple" }]);
}
await pool.end();
console.log("done");
