"""
Settings of Dovecot, as version 2.3 of Debian 12 has them, and as version 2.4 of Debian 13 has them.
"""

from __future__ import annotations

#: Version -> settings that every Dovecot of the tests needs: whom it runs as where it need not be root, above all.
COMMON = {
    "2.3": """\
base_dir = /run/dovecot
log_path = /dev/stderr
default_internal_user = dovecot
default_internal_group = dovecot
default_login_user = dovenull
first_valid_uid = 1
mail_privileged_group =
""",
    "2.4": """\
dovecot_config_version = 2.4.0
dovecot_storage_version = 2.4.0
base_dir = /run/dovecot
log_path = /dev/stderr
default_internal_user = dovecot
default_internal_group = dovecot
default_login_user = dovenull
first_valid_uid = 1
mail_privileged_group =
""",
}

#: LMTP with quotas, on ``{port}`` and ``{tls_port}``, for ``{domain}`` and the users of ``/conf/users``. It does not
#: start without a passdb, and nobody asks that.
LMTP = {
    "2.3": """\
protocols = lmtp
postmaster_address = postmaster@{domain}
hostname = dovecot.example.net
mail_location = maildir:/mail/%n
mail_home = /mail/%n.home
auth_username_format = %Ln
auth_username_chars =
mail_plugins = quota
# Nobody needs these mailboxes after a power failure.
mail_fsync = never
ssl = yes
ssl_cert = </conf/server.pem
ssl_key = </conf/server.pem
service lmtp {{
  user = vmail
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener lmtps {{
    address = 127.0.0.1
    port = {tls_port}
    ssl = yes
  }}
  unix_listener lmtp {{
    mode = 0666
  }}
}}
passdb {{
  driver = static
  args = nopassword
}}
userdb {{
  driver = passwd-file
  args = username_format=%n /conf/users
}}
plugin {{
  quota = count:User quota
  quota_vsizes = yes
}}
""",
    "2.4": """\
protocols = lmtp
postmaster_address = postmaster@{domain}
hostname = dovecot.example.net
mail_driver = maildir
mail_path = /mail/%{{user | username}}
mail_home = /mail/%{{user | username}}.home
auth_username_format = %{{user | username | lower}}
auth_username_chars =
# Nobody needs these mailboxes after a power failure.
mail_fsync = never
mail_plugins {{
  quota = yes
}}
ssl = yes
ssl_server_cert_file = /conf/server.pem
ssl_server_key_file = /conf/server.pem
service lmtp {{
  user = vmail
  inet_listener lmtp {{
    listen = 127.0.0.1
    port = {port}
  }}
  inet_listener lmtps {{
    listen = 127.0.0.1
    port = {tls_port}
    ssl = yes
  }}
  unix_listener lmtp {{
    mode = 0666
  }}
}}
passdb static {{
  password = nobody asks
}}
userdb passwd-file {{
  passwd_file_path = /conf/users
  auth_username_format = %{{user | username}}
}}
quota "User quota" {{
}}
quota_storage_grace = 0
""",
}

#: What a user of LMTP without room has in ``/conf/users``.
NO_ROOM = {"2.3": "userdb_quota_rule=*:bytes=1", "2.4": "userdb_quota_storage_size=1B"}

#: A service for other servers, which asks it about the users of ``/conf/accounts``. Whoever guesses wrongly would wait
#: for seconds by default, and the longer the oftener.
ACCOUNTS = {
    "2.3": """\
protocols =
auth_mechanisms = scram-sha-1 scram-sha-256
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener auth-client {{
    mode = 0666
  }}
}}
passdb {{
  driver = passwd-file
  args = /conf/accounts
}}
userdb {{
  driver = static
  args = uid=vmail gid=vmail
}}
""",
    "2.4": """\
protocols =
auth_mechanisms = scram-sha-1 scram-sha-256
auth_failure_delay = 0
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service auth {{
  unix_listener auth-client {{
    mode = 0666
  }}
}}
passdb passwd-file {{
  passwd_file_path = /conf/accounts
}}
userdb static {{
  fields {{
    uid = vmail
    gid = vmail
  }}
}}
""",
}

#: Two proxies. That of LMTP, on ``{lmtp_port}``, has a server for each user of ``/conf/accounts``; so has that of
#: submission, on ``{port}``, and relays to ``{relay_port}`` what comes from the others. On ``{told_port}`` its clients
#: begin with a PROXY header.
PROXIES = {
    "2.3": """\
protocols = submission lmtp
hostname = dovecot.example.net
mail_location = maildir:/mail/%n
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
haproxy_trusted_networks = 127.0.0.0/8
login_trusted_networks = 127.0.0.0/8
submission_relay_host = 127.0.0.1
submission_relay_port = {relay_port}
submission_relay_trusted = yes
lmtp_proxy = yes
service submission-login {{
  chroot =
  inet_listener submission {{
    address = 127.0.0.1
    port = {port}
  }}
  inet_listener told {{
    address = 127.0.0.1
    port = {told_port}
    haproxy = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp_port}
  }}
}}
passdb {{
  driver = passwd-file
  args = username_format=%u /conf/accounts
}}
userdb {{
  driver = static
  args = uid=vmail gid=vmail home=/mail/%n
}}
""",
    "2.4": """\
protocols = submission lmtp
hostname = dovecot.example.net
mail_driver = maildir
mail_path = /mail/%{{user | username}}
ssl = no
auth_allow_cleartext = yes
auth_mechanisms = plain login
haproxy_trusted_networks = 127.0.0.0/8
login_trusted_networks = 127.0.0.0/8
submission_relay_host = 127.0.0.1
submission_relay_port = {relay_port}
submission_relay_trusted = yes
lmtp_proxy = yes
service submission-login {{
  chroot =
  inet_listener submission {{
    listen = 127.0.0.1
    port = {port}
  }}
  inet_listener submissions {{
    port = 0
  }}
  inet_listener told {{
    listen = 127.0.0.1
    port = {told_port}
    haproxy = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    listen = 127.0.0.1
    port = {lmtp_port}
  }}
}}
passdb passwd-file {{
  passwd_file_path = /conf/accounts
  auth_username_format = %{{user}}
}}
userdb static {{
  fields {{
    uid = vmail
    gid = vmail
    home = /mail/%{{user | username}}
  }}
}}
""",
}
