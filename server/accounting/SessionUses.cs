using Lightway.Protocol;

namespace Lightway.Server.Accounting;

/// <summary>Numbers of sessions by what they were used for, see <see cref="SessionUse"/>.</summary>
public sealed class SessionUses
{
    /// <summary>The windows.</summary>
    public static readonly int[] Minutes = SessionUseModule.windows;

    /// <summary>For each window, the sessions in which packets came.</summary>
    public int[] Active { get; } = new int[Minutes.Length];

    /// <summary>For each window, those in which only other datagrams came.</summary>
    public int[] Standby { get; } = new int[Minutes.Length];

    /// <summary>Sessions whose packets are encoded.</summary>
    public int Encoding { get; set; }

    public static SessionUses Sum(IEnumerable<SessionUses> parts)
    {
        var sum = new SessionUses();
        foreach (var part in parts)
        {
            sum.Encoding += part.Encoding;
            for (var i = 0; i < Minutes.Length; i++)
            {
                sum.Active[i] += part.Active[i];
                sum.Standby[i] += part.Standby[i];
            }
        }
        return sum;
    }

    /// <summary>Numbers of all windows, for the log: 3/4/9.</summary>
    public static string TextOf(int[] numbers) => string.Join('/', numbers);
}
