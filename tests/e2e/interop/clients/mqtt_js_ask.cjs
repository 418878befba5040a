// Asks over mqtt.js and prints each message of the answer as a line of JSON: PORT 5|3.1.1 BASE CLIENT ID PROMPT.
const mqtt = require('mqtt')

const [port, version, base, name, id, prompt] = process.argv.slice(2)
const replies = `${base}/reply/${name}`
const client = mqtt.connect(`mqtt://127.0.0.1:${port}`, { protocolVersion: version === '5' ? 5 : 4 })

client.on('connect', async () => {
  await client.subscribeAsync(`${replies}/#`, { qos: 1 })
  const properties = { responseTopic: `${replies}/${id}`, correlationData: Buffer.from(id) }
  const body = JSON.stringify({ id, prompt, max_tokens: 64 })
  await client.publishAsync(`${base}/ask/${name}`, body, version === '5' ? { qos: 1, properties } : { qos: 1 })
})

client.on('message', (topic, payload, packet) => {
  const frame = JSON.parse(payload)
  const correlation = packet.properties?.correlationData ? [packet.properties.correlationData.toString()] : []
  console.log(JSON.stringify({ topic, qos: packet.qos, correlation, frame }))
  if (frame.type === 'done' || frame.type === 'error') client.end()
})
