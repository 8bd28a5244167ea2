//! The configuration of each peer, as a careful operator would write it for this very job.
//!
//! In: ports and files. Out: configuration text. All of them: one worker, keys by property from a map, the caller's
//! credentials taken off, 403 for a property without a key, `Set-Cookie` taken off answers, an access line with the
//! property and the times for every request, the upstream's certificate checked against one root, TLS 1.3, connections
//! kept on both sides for as long as the bench lasts, no buffering of whole bodies.

use std::net::SocketAddr;
use std::path::Path;

/// What a recipe is about.
pub(crate) struct Site<'a> {
    pub(crate) listen: SocketAddr,
    pub(crate) upstream: SocketAddr,
    /// Whether the upstream speaks HTTP/2.
    pub(crate) http2: bool,
    /// Holds `root.pem` and the keys; logs go there.
    pub(crate) directory: &'a Path,
    pub(crate) descriptors: u64,
}

/// nginx. The log is buffered, as ours is; request bodies stream, answers do not go to disk.
pub(crate) fn nginx(site: &Site<'_>) -> String {
    let Site { listen, upstream, directory, descriptors, .. } = site;
    let directory = directory.display();
    let port = upstream.port();
    // As root nginx would turn into a user who cannot enter the bench's directory.
    let user = if rustix::process::geteuid().is_root() { "user root root;" } else { "" };
    let connections = descriptors.saturating_sub(100).min(40_000);
    format!(
        r#"daemon off; worker_processes 1; {user} pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log warn; worker_rlimit_nofile {descriptors};
events {{ worker_connections {connections}; }}
http {{
  log_format line '$time_iso8601 $request_id $http_x_property_id $request_method $uri $status '
                  '$body_bytes_sent $request_length $request_time $upstream_response_time $upstream_http_x_request_id';
  access_log {directory}/nginx-access.log line buffer=16k flush=1s;
  client_body_temp_path {directory}/nginx-body; proxy_temp_path {directory}/nginx-proxy;
  fastcgi_temp_path {directory}/nginx-f; uwsgi_temp_path {directory}/nginx-u; scgi_temp_path {directory}/nginx-s;
  keepalive_timeout 600s; keepalive_requests 1000000000; client_max_body_size 0;
  map_hash_max_size 262144; map_hash_bucket_size 128;
  map $http_x_property_id $key {{ default ""; include {directory}/nginx-keys.map; }}
  upstream cloudbeds {{
    server 127.0.0.1:{port};
    keepalive 64; keepalive_requests 1000000000; keepalive_time 1h; keepalive_timeout 60s;
  }}
  server {{
    listen {listen} backlog=4096;
    location / {{
      if ($key = "") {{ return 403; }}
      proxy_pass https://cloudbeds; proxy_http_version 1.1;
      proxy_set_header Host localhost:{port}; proxy_set_header Connection "";
      proxy_set_header Authorization "Bearer $key";
      proxy_set_header X-Api-Key ""; proxy_set_header Cookie ""; proxy_set_header Proxy-Authorization "";
      proxy_hide_header Set-Cookie;
      proxy_ssl_verify on; proxy_ssl_trusted_certificate {directory}/root.pem;
      proxy_ssl_name localhost; proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3;
      proxy_request_buffering off; proxy_max_temp_file_size 0; proxy_buffer_size 16k; proxy_buffers 8 32k;
      proxy_connect_timeout 5s; proxy_read_timeout 120s; proxy_send_timeout 60s;
    }}
  }}
}}
"#
    )
}

/// HAProxy. It writes each access line by itself: it has no buffered log to a file.
pub(crate) fn haproxy(site: &Site<'_>) -> String {
    let Site { listen, upstream, http2, directory, descriptors } = site;
    let directory = directory.display();
    let alpn = if *http2 { "h2" } else { "http/1.1" };
    let (connections, port) = (descriptors.saturating_sub(200) / 2, upstream.port());
    format!(
        r#"global
  nbthread 1
  maxconn {connections}
  log stdout format raw local0
  ssl-server-verify required
  tune.h2.initial-window-size 1048576
defaults
  mode http
  log global
  timeout connect 5s
  timeout client 600s
  timeout server 120s
  timeout http-request 10s
  timeout http-keep-alive 600s
  http-reuse always
frontend apps
  bind {listen} backlog 4096
  log-format "%T %ID %[var(txn.property)] %HM %HP %ST %B %U %Ta %Tr %[var(txn.upstream_id)]"
  unique-id-format %{{+X}}o%pid-%rt-%ts
  http-request set-var(txn.property) req.hdr(X-Property-Id)
  http-request set-var(txn.key) var(txn.property),map_str({directory}/haproxy-keys.map)
  http-request deny deny_status 403 unless {{ var(txn.key) -m found }}
  http-request set-header Authorization "Bearer %[var(txn.key)]"
  http-request set-header Host localhost:{port}
  http-request del-header X-Api-Key
  http-request del-header Cookie
  http-request del-header Proxy-Authorization
  http-response set-var(txn.upstream_id) res.hdr(X-Request-Id)
  http-response del-header Set-Cookie
  default_backend cloudbeds
backend cloudbeds
  server one {upstream} ssl verify required ca-file {directory}/root.pem sni str(localhost) verifyhost localhost alpn {alpn} ssl-min-ver TLSv1.3
"#
    )
}

/// Ours: its defaults, but for addresses, files, one worker, limits, and idle times as long as the others'.
pub(crate) fn ours(site: &Site<'_>, admin: SocketAddr, keys: &Path, log: &Path, workers: u32, limits: &str) -> String {
    let Site { listen, upstream, http2, directory, .. } = site;
    format!(
        "listen: {listen}\nadmin: {{ listen: {admin} }}\nkeys: {{ file: {keys:?} }}\nlimits: {limits}\n\
         upstream: {{ base_url: \"https://localhost:{}\", ca_file: {:?}, http2: {http2} }}\n\
         client: {{ idle: 10m, max_connections: 20000 }}\ndrain: {{ min: 0s, max: 1s }}\n\
         log: {{ output: {log:?} }}\nworkers: {workers}\n",
        upstream.port(),
        directory.join("root.pem"),
    )
}
