namespace global

/// In packages, the place of FSharp.Core's attribute, which keeps the definition of a function as data for `specs/proofs/`. Nothing
/// in a program reads that data, and it names the folder of the sources, which no compiler option can change.
[<System.AttributeUsage(System.AttributeTargets.All)>]
type internal ReflectedDefinitionAttribute() =
    inherit System.Attribute()
