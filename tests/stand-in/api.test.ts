import { Home, StandIn } from './support.ts';

describe('a new server', () => {
  let standIn: StandIn;
  beforeAll(async () => {
    standIn = await StandIn.start(new Home());
  });

  test('offers the wizard: the first user exists once it was asked for', async () => {
    const info = await standIn.call('GET', '/System/Info/Public');
    expect(info.json).toMatchObject({ StartupWizardCompleted: false, Version: '10.11.11' });
    expect(info.json.Id).toMatch(/^[0-9a-f]{32}$/);
    expect((await standIn.call('POST', '/Startup/User', { body: { Password: 'pw' } })).status).toBe(404);
    expect((await standIn.call('GET', '/Startup/User')).json).toEqual({ Name: expect.any(String) as string });
    expect((await standIn.call('POST', '/Startup/User', { body: { Password: '' } })).status).toBe(400);
    expect(
      (await standIn.call('POST', '/Startup/RemoteAccess', { body: { EnableRemoteAccess: true } })).status,
    ).toBe(400);
    await standIn.completeWizard();
    expect((await standIn.call('GET', '/System/Info/Public')).json).toMatchObject({
      StartupWizardCompleted: true,
      ServerName: 'films',
    });
  });

  test('closes the wizard to strangers', async () => {
    expect((await standIn.call('GET', '/Startup/User')).status).toBe(401);
    expect((await standIn.call('POST', '/Startup/Complete')).status).toBe(401);
    expect((await standIn.call('GET', '/Library/VirtualFolders')).status).toBe(401);
  });
});

describe('a configured server', () => {
  const home = new Home();
  let standIn: StandIn;
  let token: string;
  let itemId: string;
  beforeAll(async () => {
    standIn = await StandIn.start(home);
    ({ token, itemId } = await standIn.setUp(home));
  });

  test('refuses a wrong password and a client that does not say who it is', async () => {
    expect((await standIn.logIn('wrong')).status).toBe(401);
    const anonymous = await fetch(`${standIn.url}/Users/AuthenticateByName`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ Username: 'admin', Pw: 'pw' }),
    });
    expect(anonymous.status).toBe(400);
  });

  test('keeps a signed-in device apart from others and forgets its old token', async () => {
    const again = (await standIn.logIn()).json.AccessToken;
    expect((await standIn.call('GET', '/Users/Me', { token })).status).toBe(401);
    token = again;
    expect((await standIn.call('GET', '/Users/Me', { token })).status).toBe(200);
  });

  test('answers 401 without a token, 403 to a user who is no administrator', async () => {
    await standIn.call('POST', '/Users/New', { token, body: { Name: 'child', Password: 'c' } });
    const body = { Username: 'child', Pw: 'c' };
    const child = (await standIn.call('POST', '/Users/AuthenticateByName', { body })).json.AccessToken;
    expect((await standIn.call('GET', '/Auth/Keys')).status).toBe(401);
    expect((await standIn.call('GET', '/Auth/Keys', { token: child })).status).toBe(403);
    expect((await standIn.call('POST', '/System/Shutdown', { token: child })).status).toBe(403);
    const names = (await standIn.call('GET', '/Users', { token })).list.map((user) => user.Name);
    expect(names).toEqual(['admin', 'child']);
  });

  test('takes an API key in the header and in the query', async () => {
    expect((await standIn.call('POST', '/Auth/Keys?app=sidecar', { token })).status).toBe(204);
    const keys = (await standIn.call('GET', '/Auth/Keys', { token })).json.Items;
    expect(keys).toEqual([
      expect.objectContaining({
        AppName: 'sidecar',
        AccessToken: expect.stringMatching(/^[0-9a-f]{32}$/) as string,
      }),
    ]);
    const key = keys[0]?.AccessToken ?? '';
    expect((await standIn.call('GET', '/Backup', { token: key })).status).toBe(200);
    expect((await standIn.call('GET', `/Backup?ApiKey=${key}`)).status).toBe(200);
  });

  test('makes items of the files of a library', async () => {
    const libraries = (await standIn.call('GET', '/Library/VirtualFolders', { token })).json;
    expect(libraries).toEqual([
      expect.objectContaining({ Name: 'Movies', CollectionType: 'movies', Locations: [home.media] }),
    ]);
    const movies = (await standIn.call('GET', '/Items?recursive=true&includeItemTypes=Movie', { token }))
      .json;
    expect(movies.TotalRecordCount).toBe(2);
    expect(movies.Items.map((item) => item.Name)).toEqual(['Big Buck Bunny', 'Sintel']);
    expect((await standIn.call('GET', `/Items/${itemId}/Images/Primary`)).status).toBe(200);
    const nowhere = '/Library/VirtualFolders?name=Shows&paths=/nowhere';
    expect((await standIn.call('POST', nowhere, { token, body: {} })).status).toBe(404);
  });

  test('remembers what was played, liked and where it was left', async () => {
    const path = `/UserItems/${itemId}/UserData`;
    expect((await standIn.call('GET', path, { token })).json).toMatchObject({ Played: true, PlayCount: 1 });
    await standIn.call('DELETE', `/UserPlayedItems/${itemId}`, { token });
    await standIn.call('POST', path, { token, body: { PlaybackPositionTicks: 6000, IsFavorite: true } });
    expect((await standIn.call('GET', path, { token })).json).toMatchObject({
      Played: false,
      PlaybackPositionTicks: 6000,
      IsFavorite: true,
    });
  });

  test('keeps playlists, collections, pictures of users and triggers of tasks in files', async () => {
    await standIn.call('POST', '/Playlists', { token, body: { Name: 'Tonight', Ids: [itemId] } });
    await standIn.call('POST', `/Collections?name=Blender&ids=${itemId}`, { token });
    expect(home.read('data/playlists/Tonight/playlist.xml')).toContain('Big Buck Bunny (2008).mkv');
    expect(home.read('data/collections/Blender [boxset]/collection.xml')).toContain(
      'Big Buck Bunny (2008).mkv',
    );

    const picture = Buffer.from('a picture').toString('base64');
    const { Id: userId } = (await standIn.call('GET', '/Users/Me', { token })).json;
    await fetch(`${standIn.url}/UserImage?userId=${userId}&ApiKey=${token}`, {
      method: 'POST',
      body: picture,
    });
    expect(home.read('config/users/admin/profile.png')).toBe('a picture');

    const id = (await standIn.call('GET', '/ScheduledTasks', { token })).list[0]?.Id;
    const triggers = [{ Type: 'IntervalTrigger', IntervalTicks: 1 }];
    await standIn.call('POST', `/ScheduledTasks/${id}/Triggers`, { token, body: triggers });
    expect(JSON.parse(home.read(`config/ScheduledTasks/${id}.js`))).toEqual(triggers);
  });

  test('answers 404, 405 and 415 like a web server', async () => {
    expect((await standIn.call('GET', '/Nowhere')).status).toBe(404);
    expect((await standIn.call('PUT', '/System/Ping')).status).toBe(405);
    const plain = await fetch(`${standIn.url}/Users/New?ApiKey=${token}`, { method: 'POST', body: '{}' });
    expect(plain.status).toBe(415);
  });

  test('shows a person the login screen', async () => {
    expect(await (await fetch(standIn.url)).text()).toContain('Please sign in');
  });
});

test('12.0 refuses legacy authorization and a second overwrite of the administrator', async () => {
  const standIn = await StandIn.start(new Home(), { STAND_IN_VERSION: '12.0.0' });
  await standIn.call('GET', '/Startup/User');
  const body = { Name: 'admin', Password: 'pw' };
  expect((await standIn.call('POST', '/Startup/User', { body })).status).toBe(204);
  expect((await standIn.call('POST', '/Startup/User', { body })).status).toBe(403);
  await standIn.call('POST', '/Startup/Complete');
  const token = (await standIn.logIn()).json.AccessToken;
  const legacy = await fetch(`${standIn.url}/Users`, { headers: { 'x-emby-token': token } });
  expect(legacy.status).toBe(401);
});
