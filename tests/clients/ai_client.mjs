// The npm `ai` SDK over chat completions and over Responses: a loop of two calls of a tool, an object, a streamed answer.
import assert from "node:assert";
import { createRequire } from "node:module";

const [url, name] = process.argv.slice(2);
const require = createRequire(process.env.NODE_PATH + "/"); // `import` does not look in NODE_PATH
const { createOpenAICompatible } = require("@ai-sdk/openai-compatible");
const { createOpenAI } = require("@ai-sdk/openai");
const { generateText, Output, stepCountIs, streamText, tool } = require("ai");
const { z } = require("zod");

const kvorum = createOpenAICompatible({ name: "kvorum", baseURL: url, supportsStructuredOutputs: true, includeUsage: true });
const responses = createOpenAI({ baseURL: url, apiKey: "none" });

const said = [];
for (const model of [kvorum(name), responses(name)]) {
  const asked = [];
  const add = tool({
    description: "Add two numbers",
    inputSchema: z.object({ a: z.number().int(), b: z.number().int() }),
    execute: async ({ a, b }) => {
      asked.push([a, b]);
      return a + b;
    },
  });
  const told = await generateText({
    model,
    tools: { add },
    stopWhen: stepCountIs(5),
    prompt: "Add 3 and 4 with the tool, then add 5 to the result with the tool. What is it?",
    temperature: 0,
    maxOutputTokens: 150,
    maxRetries: 0,
  });
  assert(asked.length >= 2 && told.steps.length > 2, JSON.stringify([asked, told.text]));

  const { output } = await generateText({
    model,
    output: Output.object({ schema: z.object({ name: z.string(), km: z.number().int() }) }),
    prompt: "A river in France and its length in km.",
    temperature: 0,
    maxOutputTokens: 80,
    maxRetries: 0,
  });
  assert(typeof output.name === "string" && Number.isInteger(output.km), JSON.stringify(output));

  const stream = streamText({ model, prompt: "Count from one to five in words.", temperature: 0, maxOutputTokens: 40 });
  const pieces = [];
  for await (const piece of stream.textStream) pieces.push(piece);
  const usage = await stream.usage;
  assert(pieces.length > 3 && usage.outputTokens > 3, JSON.stringify([pieces, usage]));
  said.push(asked, told.text.slice(0, 60), output, pieces.join("").slice(0, 40));
}
console.log("ok:", JSON.stringify(said));
