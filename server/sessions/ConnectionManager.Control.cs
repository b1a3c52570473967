using System.Net;
using Lightway.Protocol;
using Lightway.Server.Control;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;

namespace Lightway.Server.Sessions;

/// <summary>Numbers of one worker.</summary>
/// <param name="Online">Sessions.</param>
/// <param name="Connections">The same and those that have not logged in.</param>
/// <param name="Rotations">Session ids that clients have not adopted yet.</param>
/// <param name="Remaining">Connections that a drain waits for; null: none has begun.</param>
/// <param name="Load">The worker's share of a processor within the last second, 0 to 1.</param>
internal sealed record Census(int Online, int Connections, int Rotations, int? Remaining, double Load);

/// <summary>A session as it was when its worker was asked.</summary>
/// <param name="AgeMs">Milliseconds since its handshake began.</param>
/// <param name="IdleMs">Milliseconds since the latest authentic datagram or record of its client.</param>
/// <param name="Security">Suite and group.</param>
/// <param name="BytesIn">Bytes of inside packets from the client.</param>
/// <param name="BytesOut">Bytes of inside packets to the client.</param>
internal sealed record SessionView(
    SessionId Id,
    string User,
    IPEndPoint Peer,
    string Inside,
    long AgeMs,
    long IdleMs,
    Transport Transport,
    string Security,
    long BytesIn,
    long BytesOut
);

/// <content>What the operator asks for, and how the server drains.</content>
public sealed partial class ConnectionManager
{
    private readonly ThreadLoad _load = new();
    private int _turnedAway; // connections that came while the server drains

    /// <summary>Runs a question on the worker's thread. Any thread.</summary>
    /// <param name="question">Must not throw, and must be short: packets wait meanwhile.</param>
    /// <exception cref="OperationCanceledException">The worker did not answer in time, or has ended.</exception>
    internal async Task<T> AskAsync<T>(Func<ConnectionManager, T> question, CancellationToken cancellation)
    {
        var answer = new TaskCompletionSource<T>(TaskCreationOptions.RunContinuationsAsynchronously);
        _worker.Post(() => answer.SetResult(question(this)));
        return await answer.Task.WaitAsync(cancellation).ConfigureAwait(false);
    }

    /// <summary>The sessions at this moment. They may end before they are looked at.</summary>
    internal IReadOnlyList<Connection> Online() => [.. _table.All.Where(IsOnline)];

    /// <summary>Shows those of some sessions that have not ended.</summary>
    internal IReadOnlyList<SessionView> Show(IEnumerable<Connection> sessions) =>
        [
            .. sessions
                .Where(IsOnline)
                .Select(session => new SessionView(
                    session.SessionId,
                    _logins.NameOf(session),
                    session.Path.Peer.ToEndPoint(),
                    session.InsideAddress.ToString(),
                    _worker.Now - session.CreatedAt,
                    _worker.Now - session.LastOutsideAt,
                    session.Transport,
                    session.Security,
                    session.Traffic.BytesIn,
                    session.Traffic.BytesOut
                )),
        ];

    /// <summary>The session with this id, current or pending; none or one.</summary>
    internal IReadOnlyList<Connection> ById(SessionId id) =>
        [.. _table.All.Where(session => IsOnline(session) && session.Owns(id))];

    /// <summary>Ends those of some sessions of this worker that have not ended. Returns their number.</summary>
    internal int Kick(IEnumerable<Connection> sessions)
    {
        var count = 0;
        foreach (var session in sessions.Where(IsOnline))
        {
            Counters.Add(Counter.ConnKicked);
            End(session, "ended by the operator (kick)");
            count++;
        }
        return count;
    }

    private static bool IsOnline(Connection connection) => connection.State == ConnectionState.Online;

    private Census Count() =>
        new(
            _online,
            _table.Count,
            _table.PendingRotations,
            _shared.Draining.HasBegun ? _table.Count - _turnedAway : null,
            _load.Sample()
        );

    /// <summary>
    /// A connection that comes while the server drains. Its handshake is completed all the same: only then can its client
    /// be told authentically, and tries the next server at once. It ignores anything that somebody else could have sent.
    /// </summary>
    private void TurnAwayIfDraining(Connection connection)
    {
        if (_shared.Draining.HasBegun)
        {
            connection.Record.IsTurnedAway = true;
            _turnedAway++;
            Counters.Add(Counter.ConnRefusedDraining);
        }
    }

    /// <summary>Says Goodbye once the call that is on the stack has returned.</summary>
    private void RefuseIfTurnedAway(Connection connection)
    {
        if (connection.Record.IsTurnedAway)
        {
            _worker.Post(() =>
            {
                if (connection.State == ConnectionState.LinkUp)
                {
                    End(connection, "the server takes no new sessions (drain)");
                }
            });
        }
    }

    /// <summary>The first worker ends, and with it all others, when no connection is left that was there before the drain.</summary>
    private void EndIfDrained(long now)
    {
        if (Siblings[0] != this || !_shared.Draining.HasBegun)
        {
            return;
        }
        var left = Siblings.Sum(manager => manager.Latest.Remaining ?? 1); // a worker that has not counted yet may have one
        if (left == 0 || now >= _shared.Draining.DeadlineAt)
        {
            LogDrained(_log, left);
            _worker.Stop();
        }
    }
}
