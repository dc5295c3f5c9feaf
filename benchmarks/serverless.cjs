// How long a statement takes over HTTP with Neon's driver, and over a TCP connection of its own.
// POOLKEEPER_SQL=ENDPOINT DATABASE_URL=OF_A_CREDENTIAL POSTGRES_URL=OF_A_ROLE ROUNDS=N node serverless.cjs
// Prints a line of JSON for each round: milliseconds by way and number of callers.

const { neon, neonConfig } = require("@neondatabase/serverless");
const { Client } = require("pg");

const STATEMENT = "select g, g::text from generate_series(1, 10) g where g > $1::int";
const ASKED = 100;
const CALLERS = [1, 10];

neonConfig.fetchEndpoint = process.env.POOLKEEPER_SQL;
const sql = neon(process.env.DATABASE_URL);

const WAYS = {
  http: () => sql.query(STATEMENT, [3]),
  tcp: async () => {
    const client = new Client({ connectionString: process.env.POSTGRES_URL });
    await client.connect();
    try {
      return (await client.query(STATEMENT, [3])).rows;
    } finally {
      await client.end();
    }
  },
};

async function milliseconds(way, callers) {
  let left = ASKED;
  const began = performance.now();
  const ask = async () => {
    while (left-- > 0) {
      const rows = await way();
      if (rows.length !== 7) throw new Error(JSON.stringify(rows));
    }
  };
  await Promise.all(Array.from({ length: callers }, ask));
  return (performance.now() - began) / ASKED;
}

async function main() {
  for (let round = 0; round < Number(process.env.ROUNDS); round++) {
    const found = {};
    for (const [name, way] of Object.entries(WAYS)) {
      found[name] = {};
      for (const callers of CALLERS) found[name][callers] = await milliseconds(way, callers);
    }
    console.log(JSON.stringify(found));
  }
}

main();
