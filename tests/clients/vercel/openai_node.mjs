// OpenAI's own client for node at a gateway: calls, streams, models, pictures, tools, its errors and its retries.
import OpenAI, { AzureOpenAI } from 'openai';

const { BASE, GATEWAY, AZURE, KEY, WRONG, SLOW, LONG, PIXEL } = process.env;
const model = 'llama3.1:8b';
const messages = [{ role: 'user', content: 'Hello!' }];
const weather = {
  type: 'function',
  function: { name: 'weather', parameters: { type: 'object', properties: { city: { type: 'string' } } } },
};

const client = (apiKey) => new OpenAI({ baseURL: BASE, apiKey });
const chat = (one, more = {}) => one.chat.completions.create({ model, messages, ...more });
const text = async (one, more) => (await chat(one, more)).choices[0].message.content;

async function told(step) {
  try {
    return await step();
  } catch (error) {
    const { name } = error.constructor;
    const { status, code, requestID } = error;
    return { error: name, status, code, asked: Boolean(requestID), text: error.message };
  }
}

async function streamed() {
  const stream = await chat(client(KEY), { stream: true, stream_options: { include_usage: true } });
  let said = '';
  let usage = null;
  for await (const chunk of stream) {
    said += chunk.choices[0]?.delta.content ?? '';
    usage = chunk.usage ?? usage;
  }
  return [said, usage.total_tokens];
}

async function response() {
  const stream = await client(KEY).responses.create({ model, input: 'Hello!', stream: true });
  const types = [];
  for await (const event of stream) types.push(event.type);
  return [(await client(KEY).responses.create({ model, input: 'Hello!' })).output_text, types.at(-1)];
}

const answered = [];
const noting = async (...words) => {
  const answer = await fetch(...words);
  answered.push(answer.status);
  return answer;
};

async function waited() {
  const one = new OpenAI({ baseURL: BASE, apiKey: SLOW, fetch: noting });
  await chat(one);
  const [begun, before] = [performance.now(), answered.length];
  return [await text(one), (performance.now() - begun) / 1000, answered.slice(before)];
}

async function usedUp() {
  const one = new OpenAI({ baseURL: BASE, apiKey: LONG, maxRetries: 5, fetch: noting });
  await chat(one);
  const before = answered.length;
  const refusal = await told(() => chat(one));
  return { ...refusal, answered: answered.slice(before) };
}

async function models() {
  const ids = [];
  for await (const one of client(KEY).models.list()) ids.push(one.id);
  return ids.sort();
}

const azure = (apiKey) =>
  new AzureOpenAI({ endpoint: GATEWAY, deployment: AZURE, apiVersion: '2024-10-21', apiKey });
const pictured = [{ type: 'text', text: 'What is it?' }, { type: 'image_url', image_url: { url: PIXEL } }];

const steps = {
  text: () => text(client(KEY)),
  stream: streamed,
  response,
  models,
  one_model: async () => (await client(KEY).models.retrieve(model)).id,
  tool: async () => (await chat(client(KEY), { tools: [weather] })).choices[0].message.tool_calls[0].function,
  picture: () => text(client(KEY), { messages: [{ role: 'user', content: pictured }] }),
  embeddings: async () => (await client(KEY).embeddings.create({ model, input: ['one', 'two'] })).data.length,
  azure: () => text(azure(KEY)),
  azure_refused: () => told(() => text(azure(WRONG))),
  refused: () => told(() => text(client(WRONG))),
  unknown: () => told(() => text(client(KEY), { model: 'nothing' })),
  waited,
  used_up: usedUp,
};
const all = {};
for (const [name, step] of Object.entries(steps)) all[name] = await told(step);
console.log(JSON.stringify(all));
