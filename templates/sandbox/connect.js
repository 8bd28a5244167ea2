// The connect link carries the app behind the #, which no server sees: this takes it along to the consent page.
function go() {
  const found = /^#\/app\/([^/?]+)(?:\?(.*))?$/.exec(location.hash);
  if (!found) return;
  const query = new URLSearchParams(location.search);
  for (const [name, value] of new URLSearchParams(found[2] || "")) query.set(name, value);
  query.set("client_id", decodeURIComponent(found[1]));
  location.replace(`${location.pathname.replace(/\/$/, "")}/consent?${query}`);
}
addEventListener("hashchange", go);
go();
