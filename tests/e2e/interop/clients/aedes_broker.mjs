// An MQTT broker on 127.0.0.1: PORT NODE_MODULES. Says "listening".
import { createServer } from 'node:net'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'

const [port, modules] = process.argv.slice(2)
const { Aedes } = await import(pathToFileURL(createRequire(`${modules}/`).resolve('aedes')))
const broker = await Aedes.createBroker()
createServer(broker.handle).listen(Number(port), '127.0.0.1', () => console.log('listening'))
