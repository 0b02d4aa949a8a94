// Sends two log lines with winston-loki, in one batch: protobuf with snappy,
// by X-API-Key. Arguments: HOST KEY. Exits with 1 if the push failed.

const winston = require("winston");
const LokiTransport = require("winston-loki");

const [host, key] = process.argv.slice(2);
let failure = null;

const transport = new LokiTransport({
  host,
  headers: { "X-API-Key": key },
  labels: { app: "okmon-js" },
  format: winston.format.printf(({ message }) => message),
  batching: true,
  clearOnError: true,
  gracefulShutdown: false,
  replaceTimestamp: false,
  onConnectionError: (error) => {
    failure = error;
  },
});
const logger = winston.createLogger({ transports: [transport] });
for (let n = 0; n < 2; n++) {
  logger.error(`order ${n} failed: Zahlung ungültig`);
}

transport
  .flush()
  .catch((error) => {
    failure = error;
  })
  .then(() => {
    if (failure) {
      console.error(String(failure));
    }
    process.exit(failure ? 1 : 0);
  });
