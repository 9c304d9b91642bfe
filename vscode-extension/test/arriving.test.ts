import assert from "node:assert/strict";
import test from "node:test";
import { arriving } from "../src/arriving.js";

const between = (here: string, there: string) =>
  arriving(Array.from(here), Array.from(there)).map(({ start, end }) => [start, end]);

void test("equal texts have nothing arriving", () => {
  assert.deepEqual(between("abc", "abc"), []);
  assert.deepEqual(between("", ""), []);
});

void test("lines that go are marked, and those that stay between them are not", () => {
  assert.deepEqual(between("abcde", "aXcYe"), [
    [1, 2],
    [3, 4],
  ]);
  assert.deepEqual(between("abcde", "ae"), [[1, 4]]);
  assert.deepEqual(between("abc", ""), [[0, 3]]);
});

void test("where lines are only added, their place is marked", () => {
  assert.deepEqual(between("abc", "abXc"), [[2, 2]]);
  assert.deepEqual(between("abc", "abcX"), [[3, 3]]);
  assert.deepEqual(between("", "X"), [[0, 0]]);
  assert.deepEqual(between("abc", "aXbYc"), [[1, 1]]);
});

void test("of a line that is there more than once, as many stay as there will be", () => {
  assert.deepEqual(between("axxxb", "axb"), [[2, 4]]);
  assert.deepEqual(between("aaa", "aaaa"), [[3, 3]]);
});
