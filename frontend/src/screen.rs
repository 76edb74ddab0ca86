//! What the screen shows, part by part. A component that reads a part is drawn anew when that part changed.
//!
//! All parts share one type of signal, a number that grows; the values lie beside it. A signal type for each would
//! put the code that keeps signals into the page once for each.

use std::cell::RefCell;
use std::rc::Rc;

use leptos::prelude::*;

use dockframe_shared::job::Definition;
use dockframe_shared::protocol::QueueSummary;

use crate::state::actions::JobButton;
use crate::state::address::Address;
use crate::view::header::{End, Header, Pin};
use crate::view::lists::{InputItem, JobItem, OutputItem, WorkerItem};
use crate::view::trouble::Trouble;

/// Makes the screen's parts: their values, their signals, and how new values take the place of old ones.
macro_rules! parts {
    ($($(#[$about:meta])* $name:ident: $type:ty,)*) => {
        /// All values.
        #[derive(Debug, Default)]
        pub struct Screen {
            $($(#[$about])* pub $name: $type,)*
        }

        /// All parts, as components read them. Cheap to copy.
        #[derive(Debug, Clone, Copy)]
        pub struct Parts {
            held: StoredValue<Rc<RefCell<Screen>>, LocalStorage>,
            $($(#[$about])* pub $name: Part<$type>,)*
        }

        impl Parts {
            #[must_use]
            pub fn new() -> Self {
                let held = StoredValue::new_local(Rc::new(RefCell::new(Screen::default())));
                Self {
                    held,
                    $($name: Part { held, read: |screen| &screen.$name, version: RwSignal::new(0) },)*
                }
            }

            /// Shows other values; who reads a part that did not change is not disturbed.
            pub fn show(self, next: Screen) {
                let held = self.held.with_value(Rc::clone);
                $(
                    let is_another = held.borrow().$name != next.$name;
                    if is_another {
                        held.borrow_mut().$name = next.$name;
                        self.$name.version.update(|version| *version = version.wrapping_add(1));
                    }
                )*
            }
        }

        impl Default for Parts {
            fn default() -> Self {
                Self::new()
            }
        }
    };
}

parts! {
    header: Header,
    button: JobButton,
    /// *Stop* beside *Save+Run*.
    can_stop: bool,
    can_delete: bool,
    trouble: Option<Trouble>,
    outputs: Rc<Vec<OutputItem>>,
    /// Whether the shown outputs went to the host.
    are_outputs_sent: bool,
    inputs: Vec<InputItem>,
    address: Address,
    /// What the editors edit; `None` on an empty page.
    definition: Option<Definition>,
    queue: QueueView,
    /// The job's address at its queue's server, and its id.
    job_link: Option<(String, String)>,
    /// How far it is, in percent, where that is known.
    percent: Option<u8>,
    /// Names of the job's own files.
    files: Vec<String>,
    /// The queue's machines, while the panel is open.
    workers: Option<Vec<WorkerItem>>,
    jobs: Vec<JobItem>,
    is_blank: bool,
    /// There is a job that waits for the user to run it, and nothing else to show.
    is_idle: bool,
    /// Names of the files whose text is not saved.
    drafts: Vec<String>,
    /// Whether the job can name the very image that ran.
    pin: Pin,
    /// How the run ended.
    end: Option<End>,
}

/// What the queue button and panel show.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueView {
    /// The effective queue's text, as it stands in the address.
    pub name: String,
    pub is_locked: bool,
    /// Where a worker has to go.
    pub api_origin: String,
    /// The name as workers need it.
    pub key: String,
    pub is_connected: bool,
    pub has_no_worker: bool,
    pub summary: Option<QueueSummary>,
    pub n_workers: Option<u64>,
}

/// One part of the screen.
#[derive(Debug)]
pub struct Part<T: 'static> {
    held: StoredValue<Rc<RefCell<Screen>>, LocalStorage>,
    read: fn(&Screen) -> &T,
    version: RwSignal<u32>,
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Part<T> {}

impl<T> Part<T> {
    /// Follows the part.
    pub fn track(self) {
        self.version.track();
    }

    /// Reads the part and follows it.
    pub fn with<R>(self, read: impl FnOnce(&T) -> R) -> R {
        self.track();
        self.with_untracked(read)
    }

    /// Reads the part once.
    pub fn with_untracked<R>(self, read: impl FnOnce(&T) -> R) -> R {
        let held = self.held.with_value(Rc::clone);
        let screen = held.borrow();
        read((self.read)(&screen))
    }
}

impl<T: Clone> Part<T> {
    /// The value; follows the part.
    #[must_use]
    pub fn get(self) -> T {
        self.with(T::clone)
    }

    /// The value as it is now.
    #[must_use]
    pub fn get_untracked(self) -> T {
        self.with_untracked(T::clone)
    }
}
