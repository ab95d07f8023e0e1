import { html } from '../http-listener.ts';
import { route, type Route } from '../http-router.ts';
import type { Server } from '../server.ts';

/** What a person who opens the address would see first: the login screen, or the wizard. */
export function webRoutes(server: Server): Route[] {
  const page = () => {
    const screen = server.configuration.isWizardCompleted
      ? 'Please sign in'
      : 'Welcome to Jellyfin! (setup wizard)';
    return html(`<!doctype html><title>Jellyfin stand-in</title><h1>${screen}</h1>`);
  };
  return [
    route('GET', '/', 'anyone', () => ({
      status: 302,
      headers: { location: `${server.configuration.baseUrl}/web/` },
    })),
    route('GET', '/web', 'anyone', page),
    route('GET', '/web/index.html', 'anyone', page),
  ];
}
