// Drizzle over HTTP: create, insert, join, update, and a batch.
// POOLKEEPER_SQL=ENDPOINT DATABASE_URL=CONNECTION_STRING node drizzle.mjs

import assert from "node:assert/strict";
import { neon, neonConfig } from "@neondatabase/serverless";
import { eq, sql } from "drizzle-orm";
import { drizzle } from "drizzle-orm/neon-http";
import { integer, jsonb, pgTable, serial, text, timestamp } from "drizzle-orm/pg-core";

const url = process.env.DATABASE_URL;
neonConfig.fetchEndpoint = process.env.POOLKEEPER_SQL;
const db = drizzle(neon(url));

const authors = pgTable("authors", { id: serial("id").primaryKey(), name: text("name").notNull() });
const books = pgTable("books", {
  id: serial("id").primaryKey(),
  authorId: integer("author_id").references(() => authors.id),
  title: text("title").notNull(),
  tags: text("tags").array(),
  data: jsonb("data"),
  at: timestamp("at", { withTimezone: true }),
});

await db.execute(sql`create table authors (id serial primary key, name text not null)`);
await db.execute(sql`
  create table books (id serial primary key, author_id int references authors, title text not null,
    tags text[], data jsonb, at timestamptz)`);
const [author] = await db.insert(authors).values({ name: "Ada" }).returning();
const at = new Date("2026-11-20T09:00:00.123Z");
const book = { title: "Notes", authorId: author.id, tags: ["a", "b c"], data: { n: [1] }, at };
assert.deepEqual(await db.insert(books).values(book).returning(), [{ id: 1, ...book }]);
const joined = await db
  .select({ name: authors.name, title: books.title, tags: books.tags, at: books.at })
  .from(books)
  .innerJoin(authors, eq(books.authorId, authors.id));
assert.deepEqual(joined, [{ name: "Ada", title: "Notes", tags: ["a", "b c"], at }]);
const changed = await db.update(books).set({ title: "More" }).where(eq(books.id, 1));
assert.equal(changed.rowCount, 1);
const [inserted, all] = await db.batch([
  db.insert(authors).values({ name: "Grace" }).returning({ id: authors.id }),
  db.select().from(authors).orderBy(authors.id),
]);
assert.deepEqual([inserted, all.map((each) => each.name)], [[{ id: 2 }], ["Ada", "Grace"]]);
const error = await db.insert(books).values({ title: "x", authorId: 99 }).catch((each) => each);
assert.equal((error.cause ?? error).code, "23503");
console.log("done");
