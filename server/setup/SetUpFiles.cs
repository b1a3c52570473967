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
internal sealed record SetUpFile(string Name, UnixFileMode Mode, string Text);

/// <summary>The files that a server and its first client need to start.</summary>
internal static class SetUpFiles
{
    private const UnixFileMode Secret = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    private const UnixFileMode Public = Secret | UnixFileMode.GroupRead | UnixFileMode.OtherRead;
    private const string Letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    private const int PasswordLength = 24; // characters of 62 kinds: 142 bits
    private const int SaltLength = 16; // characters, the longest that SHA-512 crypt uses

    /// <param name="directory">Absolute path of the directory the files will be in.</param>
    /// <exception cref="ConfigurationException">The machine has no libcrypt to hash the password with.</exception>
    public static IReadOnlyList<SetUpFile> All(InitOptions options, string directory, DateTimeOffset now)
    {
        using var authority = new CertificateAuthority(now);
        var ca = authority.Export();
        var server = authority.Issue(options.ServerName);
        var password = RandomNumberGenerator.GetString(Letters, PasswordLength);
        var hash =
            LibCrypt.Hash(
                Encoding.UTF8.GetBytes(password),
                $"$6${RandomNumberGenerator.GetString(Letters, SaltLength)}$"
            ) ?? throw new ConfigurationException($"init: {LibCrypt.Missing}");
        return
        [
            new("ca_cert.crt", Public, ca.Certificate + "\n"),
            new("ca.key", Secret, ca.PrivateKey + "\n"),
            new("server.crt", Public, server.Certificate + "\n"),
            new("server.key", Secret, server.PrivateKey + "\n"),
            new("users.htpasswd", Secret, $"{options.User}:{hash}\n"),
            new("server.yaml", Secret, ServerYaml(options, directory)),
            new("client.yaml", Secret, ClientYaml(options, directory, password)),
        ];
    }

    private static string ServerYaml(InitOptions options, string directory)
    {
        var bind = IsIPv6(options.ServerHost) ? "[::]" : "0.0.0.0";
        var tun = Host(options.IpPool, 2);
        return $"""
            # Lightway server. `lightway-server --help` explains every key. Start it with:
            #   lightway-server --config-file {directory}/server.yaml
            #
            # The server makes the TUN interface; address, MTU, forwarding and NAT are yours to set while it runs:
            #   ip address add {tun}/{options.IpPool.PrefixLength} dev lightway
            #   ip link set lightway mtu 1350 txqueuelen 10000
            #   sysctl -w net.ipv4.ip_forward=1
            #   iptables -t nat -A POSTROUTING -s {options.IpPool} ! -o lightway -j MASQUERADE

            # Transport: this build serves udp.
            mode: udp
            # Address and UDP port to listen on.
            bind_address: "{bind}:{options.ServerPort}"

            # Certificate and key of this server; clients trust them by ca_cert.crt. ca.key makes further
            # certificates: the server does not need it, so keep it elsewhere.
            server_cert: {Quoted($"{directory}/server.crt")}
            server_key: {Quoted($"{directory}/server.key")}
            # Users, one user:hash per line. Add one: echo "name:$(openssl passwd -6)" >> users.htpasswd
            user_db: {Quoted($"{directory}/users.htpasswd")}

            # TUN interface, and the address it will have: the server keeps it out of the pool.
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

            # trace, debug, info, warn, error or off.
            log_level: info

            """;
    }

    private static string ClientYaml(InitOptions options, string directory, string password)
    {
        var host = IsIPv6(options.ServerHost) ? $"[{options.ServerHost}]" : options.ServerHost;
        return $"""
            # Lightway client. `lightway-client --help` explains every key. Start it with:
            #   lightway-client --config-file {directory}/client.yaml
            # It holds a password: only its owner may read it.

            # Where the server is: edit this when it moves.
            server: "{host}:{options.ServerPort}"
            # Transport: this build serves udp.
            mode: udp

            # The certificate that signed the server's, and the name that the server's must have. On another
            # machine, copy ca_cert.crt along and edit the path.
            ca_cert: {Quoted($"{directory}/ca_cert.crt")}
            server_dn: {Quoted(options.ServerName)}

            user: {Quoted(options.User)}
            password: {Quoted(password)}

            # TUN interface on this side.
            tun_name: lightway

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
