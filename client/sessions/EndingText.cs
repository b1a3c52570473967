using Lightway.Hosting;
using Lightway.Options;
using Lightway.Protocol;

namespace Lightway.Client.Sessions;

/// <summary>Why a client has ended, for the person who started it: the option, what is wrong, and what to do.</summary>
public static class EndingText
{
    // wolfssl/wolfcrypt/error-crypt.h; the protocol has no names for these.
    private const string BeforeDate = "(wolfSSL error -150)"; // ASN_BEFORE_DATE_E
    private const string AfterDate = "(wolfSSL error -151)"; // ASN_AFTER_DATE_E

    /// <param name="endings">Of all addresses that were tried, at least one; the last one decides what to do.</param>
    /// <param name="unreachable">Why other addresses were not tried.</param>
    public static string Of(ClientOptions options, IReadOnlyList<Ending> endings, IReadOnlyList<string> unreachable)
    {
        var last = endings[^1];
        var (cause, remedy) = Explain(options, last);
        if (endings.Count == 1 && unreachable.Count == 0 || last.Stage == Stage.Online)
        {
            return $"{cause}: {remedy} ({last.Reason})";
        }
        var causes = endings.Select(ending => Explain(options, ending).Cause).Concat(unreachable);
        return $"server: no address of {options.ServerHost}:{options.ServerPort} could be used: "
            + $"{string.Join("; ", causes)}: {remedy} ({last.Reason})";
    }

    /// <summary>The same for all servers of a list, after a round in which none could be used.</summary>
    internal static string Of(IReadOnlyList<ClientServer> servers)
    {
        // A connection that was online concerns no other server.
        var used = servers.FirstOrDefault(server => server.Endings is [.., { Stage: Stage.Online }]);
        var concerned = used is null ? servers : [used];
        var texts = concerned.Select(server =>
            server.Endings.Count > 0
                ? Of(server.Options, server.Endings, server.Unusable)
                : $"server: {server.Name} can't be tried: {string.Join(", ", server.Unusable)}"
        );
        return concerned.Count == 1
            ? texts.Single()
            : $"servers: none of {concerned.Count} could be used: {string.Join("; ", texts.Select((text, i) => $"{i + 1}. {text}"))}";
    }

    /// <summary>How a connection has ended, in a few words.</summary>
    internal static string Cause(ClientOptions options, Ending ending) => Explain(options, ending).Cause;

    /// <summary>How all connections of a round have ended.</summary>
    internal static string Causes(IReadOnlyList<ClientServer> servers) =>
        string.Join(
            "; ",
            servers.SelectMany(server =>
                server
                    .Endings.Select(ending => Cause(server.Options, ending))
                    .Concat(server.Endings.Count > 0 ? [] : server.Unusable)
            )
        );

    /// <summary>Why the authority's certificate is refused.</summary>
    /// <param name="tls">The refusal in the library's words.</param>
    public static string OfAuthority(string tls) =>
        tls.Contains(AfterDate, StringComparison.Ordinal)
            ? $"the certificate has expired: get the renewed one from the server, or set this machine's clock, which shows {DateTime.UtcNow:u}"
            : tls;

    private static (string Cause, string Remedy) Explain(ClientOptions options, Ending ending)
    {
        var server = ending.Server;
        var seconds = (ending.AfterMs + 500) / 1000;
        return (ending.Reason, ending.Stage) switch
        {
            (TunnelError.TimedOut, Stage.Silent) => (
                $"server: no answer from {server} within {seconds} s",
                $"check the address and the port, that the server runs with mode {ModeOf(options)} or both, and that no firewall between drops {ModeOf(options).ToUpperInvariant()}"
            ),
            (TunnelError.ConnectionLost, Stage.Silent) => (
                $"server: no TCP connection to {server}: {ending.Tls}",
                "check the address and the port, and that the server runs with mode tcp or both"
            ),
            (TunnelError.ConnectionLost, _) => (
                $"server: the TCP connection to {server} was lost{(ending.Tls == "none" ? "" : $": {ending.Tls}")}",
                "the server was stopped, or has ended the connection: its log says why; or the network has failed"
            ),
            (TunnelError.TimedOut, Stage.Answered) => (
                $"server: {server} answers, but the handshake did not complete within {seconds} s",
                "the path may drop long datagrams: set outside_mtu to what it carries; or the server refuses the handshake: see its log"
            ),
            (TunnelError.TimedOut, Stage.LinkUp) => (
                $"server: {server} did not answer the login within {seconds} s",
                "it may have too much to do: try again, and see its log"
            ),
            (TunnelError.TimedOut, _) => (
                $"server: {server} no longer answers",
                "no keepalive was answered within keepalive_timeout: check the network and the server, then start again"
            ),
            (TunnelError.NoFreeClientIp, _) => (
                $"server: no address left at {server}: it knows {LoginOf(options)}, but its pool is in use",
                "try again later; its operator enlarges ip_pool, or ends sessions that are not needed"
            ),
            (TunnelError.Unauthorized, _) when options.Token is not null && ending.Refusal == AuthRefusal.Credentials =>
                (
                    $"token: {server} refuses the token",
                    $"it has expired, or the server does not know its key: set another token in {options.ConfigFile}; the server's log says more"
                ),
            (TunnelError.Unauthorized, _) when options.Token is not null => (
                $"token: {server} refuses the login",
                $"the token has expired, or the server does not know its key: set another token in {options.ConfigFile}; or the server has no free address: its operator enlarges ip_pool. This server does not say which, its log does"
            ),
            (TunnelError.Unauthorized, _) when ending.Refusal == AuthRefusal.Credentials => (
                $"user: wrong user or password for '{options.User}' at {server}",
                $"check user and {PasswordOf(options)}; the server's log says more"
            ),
            (TunnelError.Unauthorized, _) => (
                $"user: {server} refuses the login of '{options.User}'",
                $"either the password or the user is wrong: check user and password in {options.ConfigFile}; or the server has no free address: its operator enlarges ip_pool. This server does not say which, its log does"
            ),
            (TunnelError.TlsNameMismatch, _) => (
                $"server_dn: the certificate of {server} does not have the name '{options.ServerDn}'",
                "set server_dn to a name in the server's certificate, which openssl x509 -noout -ext subjectAltName shows"
            ),
            (TunnelError.TlsCaMissing, _) => (
                $"ca_cert: the certificate of {server} was not signed by an authority in {Authority(options)}",
                "copy the file of the server's own authority; lightway-server init writes it as ca_cert.crt"
            ),
            (TunnelError.RejectedSession, _) => (
                $"server: {server} does not know this session any more",
                "it was restarted, or has ended the session: start the client again"
            ),
            (TunnelError.Goodbye or TunnelError.TlsPeerClosed, Stage.Online) => (
                $"server: {server} has ended the connection",
                "it was stopped, or has ended the session: its log says why"
            ),
            (TunnelError.Goodbye or TunnelError.TlsPeerClosed, _) => (
                $"server: {server} has ended the connection before the login was complete",
                "its log says why"
            ),
            _ when ending.Tls.Contains(AfterDate, StringComparison.Ordinal) => (
                Certificates.Validity(ending.Certificate.Span) is { } validity
                    ? $"the certificate of {server} expired on {validity.Until} ({Shown(validity.Subject)})"
                    : $"the certificate of {server}, or one above it, has expired",
                $"renew it at the server, or set this machine's clock, which shows {DateTime.UtcNow:u}"
            ),
            _ when ending.Tls.Contains(BeforeDate, StringComparison.Ordinal) => (
                Certificates.Validity(ending.Certificate.Span) is { } validity
                    ? $"the certificate of {server} is not valid before {validity.From} ({Shown(validity.Subject)})"
                    : $"the certificate of {server}, or one above it, is not valid yet",
                $"set this machine's clock, which shows {DateTime.UtcNow:u}, or the server's when it makes certificates"
            ),
            (TunnelError.TlsFatalAlert or TunnelError.TlsOther, Stage.Silent or Stage.Answered) => (
                $"server: the handshake with {server} failed: {ending.Tls}",
                "see the server's log; compare cipher and keyshare with its enable_pqc"
            ),
            _ => ($"server: the connection to {server} has ended; TLS: {ending.Tls}", "see the server's log"),
        };
    }

    private static string LoginOf(ClientOptions options) =>
        options.Token is null ? $"the user '{options.User}'" : "the token";

    /// <summary>Where the password comes from.</summary>
    private static string PasswordOf(ClientOptions options) =>
        options.Password.Length > 0 ? $"password in {options.ConfigFile}"
        : options.PasswordFile is { } file ? $"{file} (password_file)"
        : "the password that you type";

    /// <summary>A peer may have put anything into a name.</summary>
    private static string Shown(string name) =>
        new([.. name.Take(100).Select(letter => char.IsControl(letter) ? '?' : letter)]);

    private static string ModeOf(ClientOptions options) => options.Mode == TransportMode.Tcp ? "tcp" : "udp";

    private static string Authority(ClientOptions options) => options.CaCertIsInline ? "its text" : options.CaCert;
}
