using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Server.Addresses;
using Lightway.Server.Auth;
using Lightway.Tunnel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Udp;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Sessions;

/// <summary>
/// Lets clients in: has their passwords checked on the thread pool, gives them an address and answers. All members run
/// on the worker's thread.
/// </summary>
internal sealed partial class Logins(
    ServerSettings settings,
    WorkerContext worker,
    AddressPool pool,
    InsideDirectory inside,
    Authenticator authenticator,
    ILogger log
)
{
    private const int MaxChecks = 64; // password hashes at once; the client repeats a request that is ignored
    private readonly HashSet<Connection> _beingChecked = [];

    /// <summary>A client asks to be let in, perhaps again.</summary>
    public void OnRequest(Connection connection, AuthRequest request)
    {
        if (connection.State == ConnectionState.Online)
        {
            connection.Grant(Success(connection), worker.Now); // the reply was lost
        }
        else if (request.Method != AuthMethod.UserPassword)
        {
            Refuse(connection, $"authentication method {request.Method} is not served");
        }
        else if (!_beingChecked.Contains(connection))
        {
            Check(connection, request);
        }
    }

    /// <summary>Takes back the address of a connection that has ended.</summary>
    public void Release(Connection connection)
    {
        if (!connection.InsideAddress.IsNone)
        {
            inside.Set(pool.OffsetOf(connection.InsideAddress), null);
            pool.Free(connection.InsideAddress);
            connection.InsideAddress = Ipv4Address.None;
        }
    }

    private void Check(Connection connection, AuthRequest request)
    {
        if (_beingChecked.Count >= MaxChecks)
        {
            worker.Counters.Add(Counter.AuthIgnoredBusy);
            return;
        }
        _beingChecked.Add(connection);
        authenticator.AuthorizeOnPool(
            request.User,
            request.Password,
            answer => worker.Post(() => OnChecked(connection, request.User, answer))
        );
    }

    private void OnChecked(Connection connection, string user, LoginAnswer answer)
    {
        _beingChecked.Remove(connection);
        if (connection.State != ConnectionState.LinkUp)
        {
            return; // it has ended meanwhile
        }
        switch (answer.Verdict)
        {
            case AuthVerdict.Allowed:
                Admit(connection);
                break;
            case AuthVerdict.Refused:
                Refuse(connection, $"wrong user or password for '{Printable(user)}'");
                break;
            default:
                Refuse(connection, $"the check of '{Printable(user)}' failed: {answer.Error}");
                break;
        }
    }

    private void Admit(Connection connection)
    {
        if (!pool.TryAllocate(out var address))
        {
            worker.Counters.Add(Counter.ConnRejectedNoFreeIp);
            connection.Deny(TunnelError.NoFreeClientIp, worker.Now);
            return;
        }
        connection.InsideAddress = address;
        connection.Translation = TranslationModule.server(address, settings.ClientIp);
        inside.Set(pool.OffsetOf(address), connection);
        connection.Grant(Success(connection), worker.Now);
    }

    private void Refuse(Connection connection, string why)
    {
        worker.Counters.Add(Counter.ConnRejectedAccessDenied);
        LogRefused(log, connection.Path.Peer, why);
        connection.Deny(TunnelError.AccessDenied, worker.Now);
    }

    /// <summary>Text from a peer, fit for one line of a log.</summary>
    private static string Printable(string text) =>
        string.Concat(text.Select(letter => char.IsControl(letter) ? '?' : letter));

    private AuthSuccess Success(Connection connection) =>
        new(settings.ClientIp, settings.ServerIp, settings.DnsIp, worker.InsideMtu, connection.SessionId);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Peer} refused: {Why}")]
    private static partial void LogRefused(ILogger log, PeerAddress peer, string why);
}
