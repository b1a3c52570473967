using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Text;
using Lightway.Hosting;
using Lightway.Options;
using Lightway.Segmenter;
using Lightway.Server.Auth;

namespace Lightway.Server.Setup;

/// <summary>One file of a set-up: its name in the directory, its mode and its text.</summary>
/// <param name="IsServers">A secret that the server reads when it starts, which may run as another user.</param>
internal sealed record SetUpFile(string Name, UnixFileMode Mode, string Text, bool IsServers = false);

/// <summary>The files that a server and its first client need to start.</summary>
internal static class SetUpFiles
{
    private const UnixFileMode Secret = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    private const UnixFileMode Public = Secret | UnixFileMode.GroupRead | UnixFileMode.OtherRead;
    private const string Letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    private const int PasswordLength = 24; // characters of 62 kinds: 142 bits
    private const int SaltLength = 16; // characters, the longest that SHA-512 crypt uses

    /// <param name="directory">Absolute path of the directory the files will be in.</param>
    /// <param name="existing">The certificate to use, which stays where it is; null: one is made, and its authority.</param>
    /// <exception cref="ConfigurationException">The machine has no libcrypt to hash the password with.</exception>
    public static IReadOnlyList<SetUpFile> All(
        InitOptions options,
        string directory,
        ExistingCertificate? existing,
        DateTimeOffset now
    )
    {
        var password = RandomNumberGenerator.GetString(Letters, PasswordLength);
        var hash =
            LibCrypt.Hash(
                Encoding.UTF8.GetBytes(password),
                $"$6${RandomNumberGenerator.GetString(Letters, SaltLength)}$"
            ) ?? throw new ConfigurationException($"init: {LibCrypt.Missing}");
        return
        [
            .. existing is null ? Certificates(options.ServerName, now) : [],
            new("users.htpasswd", Secret, $"{options.User}:{hash}\n", IsServers: true),
            new("server.yaml", Secret, ServerYaml(options, directory, existing), IsServers: true),
            new("client.yaml", Secret, ClientYaml(options, directory, existing, password)),
        ];
    }

    private static SetUpFile[] Certificates(string serverName, DateTimeOffset now)
    {
        using var authority = new CertificateAuthority(now);
        var ca = authority.Export();
        var server = authority.Issue(serverName);
        return
        [
            new("ca_cert.crt", Public, ca.Certificate + "\n"),
            new("ca.key", Secret, ca.PrivateKey + "\n"),
            new("server.crt", Public, server.Certificate + "\n"),
            new("server.key", Secret, server.PrivateKey + "\n", IsServers: true),
        ];
    }

    private static string ServerYaml(InitOptions options, string directory, ExistingCertificate? existing)
    {
        var certificate = existing is null
            ? $"""
                # Certificate and key of this server; clients trust them by ca_cert.crt. ca.key makes further
                # certificates: the server does not need it, so keep it elsewhere.
                server_cert: {Quoted($"{directory}/server.crt")}
                server_key: {Quoted($"{directory}/server.key")}
                """
            : $"""
                # Certificate and key of this server. After a renewal: lightway-server reload
                server_cert: {Quoted(existing.Certificate)}
                server_key: {Quoted(existing.Key)}
                """;
        var bind = IsIPv6(options.ServerHost) ? "[::]" : "0.0.0.0";
        var tun = Host(options.IpPool, 2);
        return $"""
            # Lightway server. `lightway-server --help` explains every key. Start it with:
            #   lightway-server --config-file {directory}/server.yaml
            #
            # Before that, once after each start of the machine, as root:
            #   lightway-server setup-host --apply --config-file {directory}/server.yaml
            # It makes the TUN interface with its address and MTU, forwards the clients' packets with NAT, and keeps the
            # clients apart. --print shows what it does, --undo takes it back.

            # Transport: udp, tcp or both. tcp is for clients whose networks block UDP.
            mode: udp
            # Address and port to listen on.
            bind_address: "{bind}:{options.ServerPort}"

            {certificate}
            # Users, one user:hash per line. Add one: echo "name:$(openssl passwd -6)" >> users.htpasswd
            user_db: {Quoted($"{directory}/users.htpasswd")}

            # TUN interface, and the address that setup-host gives it: the server keeps it out of the pool.
            tun_name: lightway
            tun_ip: {tun}

            # Network that clients get their addresses from.
            ip_pool: {options.IpPool}
            # What clients see inside the tunnel: their own address, the server's and the DNS server's. All
            # clients are told the same; the server translates.
            lightway_client_ip: {Host(options.IpPool, 5)}
            lightway_server_ip: {Host(options.IpPool, 6)}
            lightway_dns_ip: {Host(options.IpPool, 1)}

            # Seal packets without DTLS once a client is in: faster, as safe.
            enable_expresslane: true
            # Where the kernel can: read superpackets from the TUN and send their segments by UDP GSO; receive by
            # UDP GRO and write superpackets to the TUN.
            enable_tun_offload: true

            # Socket for `lightway-server status`, `sessions`, `kick`, `reload` and `drain`.
            # control_socket: {ControlSocket.DefaultPath}

            # trace, debug, info, warn, error or off.
            log_level: info

            """;
    }

    private static string ClientYaml(
        InitOptions options,
        string directory,
        ExistingCertificate? existing,
        string password
    )
    {
        var authority = existing is null
            ? $"""
                # The certificate that signed the server's, and the name that the server's must have. On another
                # machine, copy ca_cert.crt along and edit the path.
                ca_cert: {Quoted($"{directory}/ca_cert.crt")}
                """
            : $"""
                # The authorities that may have signed the server's certificate, here those that this system trusts,
                # and the name that the server's must have.
                ca_cert: {Quoted(ExistingCertificate.SystemAuthorities)}
                """;
        var host = IsIPv6(options.ServerHost) ? $"[{options.ServerHost}]" : options.ServerHost;
        return $"""
            # Lightway client. `lightway-client --help` explains every key. Start it with:
            #   lightway-client --config-file {directory}/client.yaml
            # It holds a password: only its owner may read it.

            # Where the server is: edit this when it moves.
            server: "{host}:{options.ServerPort}"
            # Transport: udp or tcp, as the server has it.
            mode: udp

            {authority}
            server_dn: {Quoted(options.ServerName)}

            user: {Quoted(options.User)}
            password: {Quoted(password)}

            # TUN interface on this side.
            tun_name: lightway
            # DNS settings of this machine: noexec leaves them alone. With default, names are asked for through
            # the tunnel, once a name server answers at the server's lightway_dns_ip.
            dns_config_mode: noexec

            # Seal packets without DTLS once the server lets us in: faster, as safe.
            enable_expresslane: true

            # trace, debug, info, warn, error or off.
            log_level: info

            """;
    }

    /// <summary>A YAML double-quoted scalar.</summary>
    private static string Quoted(string text) =>
        '"' + text.Replace("\\", @"\\", StringComparison.Ordinal).Replace("\"", "\\\"", StringComparison.Ordinal) + '"';

    private static bool IsIPv6(string host) =>
        IPAddress.TryParse(host, out var address) && address.AddressFamily == AddressFamily.InterNetworkV6;

    private static Ipv4Address Host(IPNetwork network, uint offset) =>
        new(Ipv4Address.Of(network.BaseAddress).Value + offset);
}
