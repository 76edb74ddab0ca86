//! Mounts the page.

fn main() {
    console_error_panic_hook::set_once();
    dockframe_frontend::components::mount();
}
