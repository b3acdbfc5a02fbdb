// What the drivers for Node share: the line protocol (see common.py) and small helpers.
import readline from "node:readline";
import { readFileSync } from "node:fs";

export const TIMEOUT_MS = 60_000;
export const SESSION_TIMEOUT_MS = 6_000;
export const HEARTBEAT_MS = 500;

export const text = (value) => (value === null || value === undefined ? null : value.toString());

export async function eventually(condition, timeoutMs) {
  const deadline = Date.now() + timeoutMs;
  while (!condition() && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
  return condition();
}

export function tls(security) {
  if (!security.ca) return undefined;
  const own = security.certificate && { cert: readFileSync(security.certificate), key: readFileSync(security.key) };
  return { ca: [readFileSync(security.ca)], servername: "localhost", ...own };
}

// Answers requests, one at a time, until stdin ends. What libraries print goes to stderr.
export async function serve(operations) {
  console.log = console.error;
  process.on("unhandledRejection", (error) => console.error("unhandled:", error));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { op, ...request } = JSON.parse(line);
    let answer;
    try {
      if (!operations[op]) throw new Error(`no operation ${op}`);
      answer = { ok: (await operations[op](request)) ?? null };
    } catch (error) {
      const causes = (error.errors ?? []).map((cause) => `${cause.name}: ${cause.apiCode ?? ""} ${cause.message}`);
      answer = { error: [`${error.name}: ${error.type ?? ""} ${error.message}`, ...causes].join("; ") };
    }
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  }
  process.exit(0);
}
