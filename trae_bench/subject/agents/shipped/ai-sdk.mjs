import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, tool } from "ai";
import { spawnSync } from "node:child_process";
import { z } from "zod";

const provider = createOpenAICompatible({
  name: "provider", baseURL: process.env.BASE_URL, apiKey: process.env.API_KEY,
});
const bash = tool({
  description: "Run a shell command.",
  inputSchema: z.object({ command: z.string() }),
  execute: ({ command }) => {
    const done = spawnSync("bash", ["-c", command], { encoding: "utf8" });
    return done.stdout + done.stderr;
  },
});
const model = provider(process.env.MODEL);
const limits = { maxRetries: 0, stopWhen: stepCountIs(10000) };
const { text } = await generateText({ model, tools: { bash }, prompt: process.argv[2], ...limits });
console.log(text);
