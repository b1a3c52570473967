using Lightway.Tunnel.Connections;

namespace Lightway.Server.Sessions;

/// <summary>Who is logged in as whom, of all workers. Safe from any thread.</summary>
public sealed class UserSessions
{
    private readonly Lock _gate = new();
    private readonly Dictionary<string, List<Connection>> _byUser = new(StringComparer.Ordinal);

    /// <summary>A session of this user begins. Returns the user's oldest ones, which must be ended for it.</summary>
    /// <param name="limit">Sessions that the user may have at the same time; 0: as many as there are addresses.</param>
    public IReadOnlyList<Connection> Add(string user, Connection connection, int limit)
    {
        lock (_gate)
        {
            if (!_byUser.TryGetValue(user, out var sessions))
            {
                _byUser.Add(user, sessions = []);
            }
            sessions.Add(connection);
            if (limit == 0 || sessions.Count <= limit)
            {
                return [];
            }
            var oldest = sessions.GetRange(0, sessions.Count - limit);
            sessions.RemoveRange(0, oldest.Count);
            return oldest;
        }
    }

    /// <summary>The sessions of this user, as they are now.</summary>
    public IReadOnlyList<Connection> Of(string user)
    {
        lock (_gate)
        {
            return _byUser.TryGetValue(user, out var sessions) ? [.. sessions] : [];
        }
    }

    /// <summary>A session of this user has ended.</summary>
    public void Remove(string user, Connection connection)
    {
        lock (_gate)
        {
            if (_byUser.TryGetValue(user, out var sessions) && sessions.Remove(connection) && sessions.Count == 0)
            {
                _byUser.Remove(user);
            }
        }
    }
}
