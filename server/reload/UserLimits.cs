using Lightway.Options;
using Lightway.Segmenter;

namespace Lightway.Server.Reload;

/// <summary>What one user may have.</summary>
/// <param name="Address">The inside address that only this user gets; None: one of the pool.</param>
/// <param name="Sessions">At the same time; 0: any number.</param>
/// <param name="IdleMs">Milliseconds of silence after which a session ends.</param>
public readonly record struct UserLimit(Ipv4Address Address, int Sessions, long IdleMs);

/// <summary>What users may have: all of them the same, but for those of <c>address_map</c>. Immutable.</summary>
public sealed class UserLimits
{
    private readonly UserLimit _everybody;
    private readonly Dictionary<string, UserLimit> _users = new(StringComparer.Ordinal);

    /// <param name="sessions">Of a user; 0: any number.</param>
    /// <param name="idleMs">Milliseconds of silence after which a session ends.</param>
    /// <param name="rules">Of single users.</param>
    public UserLimits(int sessions, long idleMs, IEnumerable<UserRule> rules)
    {
        _everybody = new(Ipv4Address.None, sessions, idleMs);
        foreach (var rule in rules)
        {
            _users[rule.User] = new(
                rule.Address is { } address ? Ipv4Address.Of(address) : Ipv4Address.None,
                rule.SessionsPerUser ?? sessions,
                rule.SessionIdleLimit is { } limit ? (long)limit.TotalMilliseconds : idleMs
            );
        }
    }

    /// <summary>The addresses that single users have.</summary>
    public IEnumerable<Ipv4Address> Addresses =>
        _users.Values.Select(user => user.Address).Where(address => !address.IsNone);

    public UserLimit Of(string user) => _users.GetValueOrDefault(user, _everybody);
}
