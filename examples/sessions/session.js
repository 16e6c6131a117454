// A client whose session outlives the page: its id is kept in the tab's sessionStorage.
export function clientWithSession(Centrifuge, url, options = {}, key = "ws-cluster-session") {
  const client = new Centrifuge(url, {
    ...options,
    getData: async () => ({ ...options.data, session: sessionStorage.getItem(key) ?? "" }),
  });
  client.on("connected", (ctx) => sessionStorage.setItem(key, ctx.data.session.id));
  return client;
}
