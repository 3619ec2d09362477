// Vercel's AI SDK at a gateway, by each of its providers: answers, streams, tools, pictures, embeddings, refusals.
import { createAnthropic } from '@ai-sdk/anthropic';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { embedMany, generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const { BASE, KEY, WRONG, SLOW, LONG, PIXEL } = process.env;
const LLAMA = 'llama3.1:8b';
const QWEN = 'Qwen/Qwen3-8B';
const prompt = 'Hello!';

const openai = (apiKey) => createOpenAI({ baseURL: BASE, apiKey });
const compatible = (apiKey) => createOpenAICompatible({ name: 'own', baseURL: BASE, apiKey, includeUsage: true });
const anthropic = (apiKey) => createAnthropic({ baseURL: BASE, apiKey });
const providers = {
  chat: (key) => openai(key).chat(LLAMA),
  responses: (key) => openai(key)(LLAMA),
  compatible: (key) => compatible(key)(LLAMA),
  anthropic: (key) => anthropic(key)(QWEN),
};

const tools = {
  weather: tool({
    description: 'The weather of a city',
    inputSchema: z.object({ city: z.string() }),
    execute: ({ city }) => `Rain in ${city}`,
  }),
};

async function streamed(model) {
  const stream = streamText({ model, prompt, onError: () => {} });
  let text = '';
  for await (const piece of stream.textStream) text += piece;
  return [text, (await stream.usage).totalTokens];
}

async function usedTool(model) {
  const { steps, text } = await generateText({ model, prompt, tools, stopWhen: stepCountIs(2) });
  return [steps[0].toolResults[0].output, text];
}

async function picture(model) {
  const content = [{ type: 'text', text: 'What is it?' }, { type: 'image', image: PIXEL }];
  return (await generateText({ model, messages: [{ role: 'user', content }] })).text;
}

const answered = [];
const send = globalThis.fetch;
globalThis.fetch = async (...words) => {
  const answer = await send(...words);
  answered.push(answer.status);
  return answer;
};

async function waited(model) {
  await generateText({ model, prompt });
  const [begun, before] = [performance.now(), answered.length];
  const { text } = await generateText({ model, prompt });
  return [text, (performance.now() - begun) / 1000, answered.slice(before)];
}

async function told(step) {
  try {
    return await step();
  } catch (error) {
    const last = error.lastError ?? error;
    return { error: [error.name, last.name], status: last.statusCode, retryable: last.isRetryable, text: last.message };
  }
}

const told_by = {};
for (const [name, by] of Object.entries(providers)) {
  const of = {};
  of.text = await told(async () => (await generateText({ model: by(KEY), prompt })).text);
  of.stream = await told(() => streamed(by(KEY)));
  of.tool = await told(() => usedTool(by(KEY)));
  of.picture = await told(() => picture(by(KEY)));
  of.refused = await told(() => generateText({ model: by(WRONG), prompt }));
  of.waited = await told(() => waited(by(SLOW)));
  told_by[name] = of;
}
told_by.unknown = await told(() => generateText({ model: compatible(KEY)('nothing'), prompt }));
told_by.used_up = await told(async () => {
  await generateText({ model: compatible(LONG)(LLAMA), prompt });
  await generateText({ model: compatible(LONG)(LLAMA), prompt, maxRetries: 0 });
});
told_by.embeddings = await told(async () => {
  const model = compatible(KEY).embeddingModel(LLAMA);
  return (await embedMany({ model, values: ['one', 'two'] })).embeddings.length;
});
console.log(JSON.stringify(told_by));
