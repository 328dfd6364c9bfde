#!/usr/bin/env node
// Run a WASI guest under node:wasi.
//
//     run_node.mjs [--dir HOST::GUEST]... GUEST.wasm [ARG...]
//
// The guest gets this process's streams, and its exit status becomes this process's. Node has
// no read-only preopens, so neither has this.

import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import process from "node:process";

const WASI_FLAG = "--experimental-wasi-unstable-preview1";
const USAGE_STATUS = 2;

function fail(message) {
  process.stderr.write(`run_node: ${message}\n`);
  process.exit(USAGE_STATUS);
}

function parse(words) {
  const preopens = {};
  let at = 0;
  for (; words[at] === "--dir"; at += 2) {
    const [host, guest] = (words[at + 1] ?? "").split("::");
    if (!host || !guest) fail(`${words[at + 1]} is not HOST::GUEST`);
    preopens[guest] = host;
  }
  if (at >= words.length || words[at].startsWith("-")) fail("usage: [--dir HOST::GUEST]... GUEST");
  return { preopens, args: words.slice(at) };
}

// Up to node 19 the module exists only behind a flag, which cannot be set from within.
async function loadWasi() {
  try {
    return (await import("node:wasi")).WASI;
  } catch (error) {
    if (error.code !== "ERR_UNKNOWN_BUILTIN_MODULE") throw error;
    if (process.execArgv.includes(WASI_FLAG)) fail("this node has no WASI");
    const child = spawnSync(process.execPath, [WASI_FLAG, ...process.argv.slice(1)], {
      stdio: "inherit",
    });
    if (child.signal) process.kill(process.pid, child.signal);
    return process.exit(child.status);
  }
}

process.removeAllListeners("warning"); // "WASI is an experimental feature", on every run

const { preopens, args } = parse(process.argv.slice(2));
const WASI = await loadWasi();
const wasi = new WASI({ version: "preview1", args, env: process.env, preopens, returnOnExit: true });
const module = await WebAssembly.compile(await readFile(args[0]));
const instance = await WebAssembly.instantiate(module, {
  wasi_snapshot_preview1: wasi.wasiImport,
});
process.exitCode = wasi.start(instance);
