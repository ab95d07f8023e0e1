import { withoutBaseUrl } from './base-url.ts';
import { HttpListener, text, type HttpHandler } from './http-listener.ts';
import { createRouter } from './http-router.ts';
import { backupRoutes } from './routes/backup.ts';
import { itemRoutes } from './routes/items.ts';
import { libraryRoutes } from './routes/library.ts';
import { startupRoutes } from './routes/startup.ts';
import { systemRoutes } from './routes/system.ts';
import { userRoutes } from './routes/users.ts';
import { webRoutes } from './routes/web.ts';
import type { Server } from './server.ts';
import { isTwelve } from './versions.ts';

/** The face of the started server. Until it is ready it answers 503 to everything but a ping. */
export class MainServer {
  readonly #listener: HttpListener;
  readonly #readiness: { isReady: boolean };

  private constructor(listener: HttpListener, readiness: { isReady: boolean }) {
    this.#listener = listener;
    this.#readiness = readiness;
  }

  static async open(port: number, server: Server): Promise<MainServer> {
    const readiness = { isReady: false };
    const router = createRouter(
      [
        ...systemRoutes(server),
        ...startupRoutes(server),
        ...userRoutes(server),
        ...libraryRoutes(server),
        ...itemRoutes(server),
        ...backupRoutes(server),
        ...webRoutes(server),
      ],
      {
        sessions: server.sessions,
        isWizardCompleted: () => server.configuration.isWizardCompleted,
        isLegacyAllowed: !isTwelve(server.options.version),
        log: server.log,
      },
    );
    const baseUrl = server.configuration.baseUrl;
    const handler: HttpHandler = (request, url) => {
      url.pathname = withoutBaseUrl(url.pathname, baseUrl);
      const path = url.pathname.toLowerCase();
      if (path === '/health') {
        return readiness.isReady && server.isDatabaseReachable() ? text('Healthy') : text('Unhealthy', 503);
      }
      if (!readiness.isReady && path !== '/system/ping') {
        return { ...text('Server is still starting up. Please wait.', 503), headers: { 'retry-after': '5' } };
      }
      return router(request, url);
    };
    return new MainServer(await HttpListener.open(port, handler), readiness);
  }

  becomeReady(): void {
    this.#readiness.isReady = true;
  }

  close(graceMs: number): Promise<void> {
    return this.#listener.close(graceMs);
  }
}
