import { createServer, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { buffer } from 'node:stream/consumers';
import { connectionStringFor } from '../support/azurite.ts';
import { onCleanUp } from '../support/clean-up.ts';

export interface BodyFlipper {
  readonly connectionString: string;
  /** Bodies changed so far. */
  readonly flipped: number;
}

/** A forwarder that inverts one byte of the request bodies that `wants` chooses: a line that changes what is uploaded. */
export async function startBodyFlipper(
  targetPort: number,
  wants: (query: URLSearchParams) => boolean,
): Promise<BodyFlipper> {
  let flipped = 0;
  const server = createServer((incoming, response) => {
    void buffer(incoming).then((body) => {
      const { method, url = '/', headers } = incoming;
      if (body.length > 0 && wants(new URL(url, 'http://127.0.0.1').searchParams)) {
        const middle = Math.floor(body.length / 2);
        body.writeUInt8(body.readUInt8(middle) ^ 0xff, middle);
        flipped += 1;
      }
      const options = { port: targetPort, host: '127.0.0.1', method, path: url, headers, agent: false };
      httpRequest(options, (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      }).end(body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onCleanUp('servers', () => {
    server.closeAllConnections();
    server.close();
  });
  return {
    connectionString: connectionStringFor((server.address() as AddressInfo).port),
    get flipped() {
      return flipped;
    },
  };
}
