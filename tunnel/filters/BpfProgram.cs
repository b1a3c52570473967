namespace Lightway.Tunnel.Filters;

/// <summary>
/// Writes a program of struct bpf_insn, with labels to jump to. Registers and helpers: see <see cref="Bpf"/>; the calling
/// convention: Documentation/bpf/standardization/instruction-set.rst of the kernel.
/// </summary>
internal sealed class BpfProgram
{
    /// <summary>When a jump is taken, compared with all 64 bits.</summary>
    public enum If : byte
    {
        Always = 0x05,
        Equal = 0x15,
        Above = 0x25, // unsigned
        NotEqual = 0x55,
    }

    private const byte FromRegister = 0x08; // the second operand is a register
    private readonly List<ulong> _instructions = [];
    private readonly List<(int At, string Label)> _jumps = [];
    private readonly Dictionary<string, int> _labels = [];

    public void Set(byte register, uint value) => Write(0xB7, register, immediate: value);

    public void Copy(byte register, byte from) => Write(0xBF, register, from);

    public void AddValue(byte register, int value) => Write(0x07, register, immediate: unchecked((uint)value));

    public void Add(byte register, byte other) => Write(0x0F, register, other);

    public void Subtract(byte register, byte other) => Write(0x1F, register, other);

    public void Multiply(byte register, byte other) => Write(0x2F, register, other);

    /// <summary>register = its lower 32 bits - value, modulo 2^32.</summary>
    public void SubtractValue32(byte register, uint value) => Write(0x14, register, immediate: value);

    /// <summary>Register 0 = two bytes of the packet, from network into host order. Register 6 must be the packet; 1 to 5 are lost. A packet that is too short ends the program with 0.</summary>
    public void LoadPacket16(uint at) => Write(0x28, immediate: at);

    /// <summary>Four bytes, likewise.</summary>
    public void LoadPacket32(uint at) => Write(0x20, immediate: at);

    public void Load32(byte register, byte address, short offset) => Write(0x61, register, address, offset);

    public void Load64(byte register, byte address, short offset) => Write(0x79, register, address, offset);

    public void Store32(byte address, short offset, byte register) => Write(0x63, address, register, offset);

    public void Store64(byte address, short offset, byte register) => Write(0x7B, address, register, offset);

    /// <summary>Adds a register to 64 bits in memory that others write too.</summary>
    public void AtomicAdd64(byte address, short offset, byte register) => Write(0xDB, address, register, offset);

    /// <summary>register = a table, for a helper.</summary>
    public void LoadMap(byte register, int map) => LoadWide(register, 1, (uint)map, 0); // BPF_PSEUDO_MAP_FD

    /// <summary>register = the address of a byte in the only value of an array (Linux 5.2).</summary>
    public void LoadMapValue(byte register, int map, uint offset) => LoadWide(register, 2, (uint)map, offset); // BPF_PSEUDO_MAP_VALUE

    public void Call(Bpf.Helper helper) => Write(0x85, immediate: (uint)helper);

    public void Jump(string label) => Branch((byte)If.Always, 0, 0, 0, label);

    public void Jump(If condition, byte register, uint value, string label) =>
        Branch((byte)condition, register, 0, value, label);

    public void JumpByRegister(If condition, byte register, byte other, string label) =>
        Branch((byte)((byte)condition | FromRegister), register, other, 0, label);

    public void Label(string label) => _labels.Add(label, _instructions.Count);

    /// <summary>Ends the program: register 0 is its result.</summary>
    public void End() => Write(0x95);

    /// <returns>A descriptor, or -1 with errno set.</returns>
    public int Load()
    {
        var instructions = _instructions.ToArray();
        foreach (var (at, label) in _jumps)
        {
            instructions[at] |= (ulong)(ushort)(_labels[label] - at - 1) << 16;
        }
        return Bpf.Load(instructions);
    }

    private void Branch(byte code, byte register, byte other, uint value, string label)
    {
        _jumps.Add((_instructions.Count, label));
        Write(code, register, other, immediate: value);
    }

    private void LoadWide(byte register, byte kind, uint low, uint high)
    {
        Write(0x18, register, kind, immediate: low);
        Write(0x00, immediate: high);
    }

    private void Write(byte code, byte destination = 0, byte source = 0, short offset = 0, uint immediate = 0) =>
        _instructions.Add(Bpf.Instruction(code, destination, source, offset, immediate));
}
