// What curl's `connect-to` does, for node's fetch: connections to port 443 of any host go to HTTPS_GATEWAY
// (host:port) instead. Names, certificates and requests stay as they are.
const tls = require('node:tls');

const [host, port] = process.env.HTTPS_GATEWAY.split(':');
const connect = tls.connect;

tls.connect = (options, ...rest) => {
  if (Number(options.port || 443) !== 443) throw new Error(`port ${options.port} is not https's own`);
  return connect({ ...options, host, port }, ...rest);
};
