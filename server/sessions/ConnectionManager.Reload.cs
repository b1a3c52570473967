using Lightway.Server.Reload;
using Lightway.Tunnel.Metrics;

namespace Lightway.Server.Sessions;

/// <content>What a reload changes.</content>
public sealed partial class ConnectionManager
{
    /// <summary>
    /// Has the worker take over another identity, soon, and runs an action on its thread after that. Any thread; a worker that
    /// has stopped does neither.
    /// </summary>
    public void Post(ServerIdentity identity, Action done) =>
        _worker.Post(() =>
        {
            Use(identity);
            done();
        });

    private void Use(ServerIdentity identity)
    {
        if (identity.Tls is { } tls)
        {
            _listener?.Use(tls);
        }
        _acceptor.Use(identity.StreamTls);
        _logins.Limits = identity.Limits;
        _shared.Gate?.Use(identity.GateBudget);
        foreach (var connection in _strangers.Use(identity.AdmissionOf(_shared.Workers)))
        {
            Counters.Add(Counter.ConnGaveWay);
            End(connection, "too many connections without a login");
        }
        if (identity.EndsRemovedUsers)
        {
            foreach (var connection in _logins.OfRemovedUsers())
            {
                Counters.Add(Counter.ConnUserRemoved);
                End(connection, "its user is no longer in user_db (end_removed_users)");
            }
        }
    }
}
