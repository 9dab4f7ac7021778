//! Element types, as HDF5 describes them (Specification IV.A.2.d, "Datatype Message").

/// Which end of a number comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ByteOrder {
    /// Least significant byte first.
    Little,
    /// Most significant byte first.
    Big,
    /// The pairwise order of the VAX, for floats.
    Vax,
}

/// The type of one element.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Datatype {
    /// Bytes of one element, as stored.
    pub size: usize,
    /// What the bytes mean.
    pub class: Class,
}

/// What the bytes of an element mean.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Class {
    /// A whole number.
    Integer {
        /// Two's complement, or without a sign.
        signed: bool,
        /// Byte order.
        order: ByteOrder,
        /// Position of the lowest bit that counts.
        bit_offset: u16,
        /// How many bits count.
        bit_precision: u16,
    },
    /// A floating-point number; the fields' places are those of the message.
    Float {
        /// Byte order.
        order: ByteOrder,
        /// Position of the lowest bit that counts.
        bit_offset: u16,
        /// How many bits count.
        bit_precision: u16,
        /// Position of the sign bit.
        sign_location: u8,
        /// Position of the exponent's lowest bit.
        exponent_location: u8,
        /// Bits of the exponent.
        exponent_size: u8,
        /// Position of the mantissa's lowest bit.
        mantissa_location: u8,
        /// Bits of the mantissa.
        mantissa_size: u8,
        /// What is subtracted from the stored exponent.
        exponent_bias: u32,
        /// 0: as stored; 1: top bit always set and stored; 2: top bit implied.
        mantissa_normalization: u8,
    },
    /// A time stamp of the obsolete class 2.
    Time {
        /// Byte order.
        order: ByteOrder,
    },
    /// Text of a fixed length in bytes.
    FixedString {
        /// 0: null-terminated, 1: null-padded, 2: space-padded.
        padding: u8,
        /// UTF-8 rather than ASCII.
        utf8: bool,
    },
    /// Bits without an arithmetic meaning.
    Bitfield {
        /// Byte order.
        order: ByteOrder,
        /// Position of the lowest bit that counts.
        bit_offset: u16,
        /// How many bits count.
        bit_precision: u16,
    },
    /// Bytes with a tag.
    Opaque {
        /// What the writer calls them (h5py keeps `NumPy` types such as `NUMPY:datetime64[ns]` here).
        tag: Vec<u8>,
    },
    /// Named members at their places.
    Compound {
        /// In the order of the file.
        members: Vec<Member>,
    },
    /// A pointer to an object or a region.
    Reference {
        /// Which kind of pointer.
        kind: ReferenceKind,
    },
    /// Names for some values of an integer type.
    Enum {
        /// The integer type.
        base: Box<Datatype>,
        /// In the order of the file.
        members: Vec<EnumMember>,
    },
    /// Text of any length: 4 bytes length, 8 bytes heap collection, 4 bytes heap index.
    VlenString {
        /// 0: null-terminated, 1: null-padded, 2: space-padded.
        padding: u8,
        /// UTF-8 rather than ASCII.
        utf8: bool,
    },
    /// A sequence of any length, stored as a variable-length string is.
    VlenSequence {
        /// The type of the sequence's elements.
        base: Box<Datatype>,
    },
    /// A fixed box of elements.
    Array {
        /// Elements along each axis, slowest first.
        shape: Vec<u64>,
        /// The type of the box's elements.
        base: Box<Datatype>,
    },
    /// A real part and an imaginary part (HDF5 2.0).
    Complex {
        /// The floating-point type of each part.
        base: Box<Datatype>,
    },
}

/// One member of a compound.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its name, not necessarily UTF-8.
    pub name: Vec<u8>,
    /// First byte within the element.
    pub offset: usize,
    /// Its type.
    pub datatype: Datatype,
}

/// One name of an enumeration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct EnumMember {
    /// The name.
    pub name: Vec<u8>,
    /// The value, as the base type stores it.
    pub value: Vec<u8>,
}

/// What a reference points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReferenceKind {
    /// An object, by its address.
    Object,
    /// A region of a dataset, by a heap entry.
    Region,
    /// One of the kinds of HDF5 1.12, with its number.
    Revised(u8),
}

impl Datatype {
    /// Whether the stored bytes are, or contain, a pointer into the file (variable-length data or a reference), so
    /// that they mean nothing outside it.
    #[must_use]
    pub fn contains_pointers(&self) -> bool {
        match &self.class {
            Class::VlenString { .. } | Class::VlenSequence { .. } | Class::Reference { .. } => true,
            Class::Compound { members } => members.iter().any(|m| m.datatype.contains_pointers()),
            Class::Array { base, .. } | Class::Enum { base, .. } | Class::Complex { base } => {
                base.contains_pointers()
            }
            _ => false,
        }
    }

    /// Whether it is a variable-length string and nothing else.
    #[must_use]
    pub fn is_vlen_string(&self) -> bool {
        matches!(self.class, Class::VlenString { .. })
    }
}
